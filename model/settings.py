"""What a user can set of a model and of its losses. Imports neither torch nor Transformers, so help texts come fast.

`LeccrConfig` in `model.config` adds the encoders and saves the model's part as `config.json`.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any


def setting(
    default: Any,
    help: str,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    choices: Sequence[str] | None = None,
) -> Any:
    """Declare a dataclass field with its meaning and allowed values, as metadata of the field.

    Args:
        default: The default.
        help: What it means, with its unit.
        at_least: Smallest allowed number.
        at_most: Largest allowed number.
        choices: The only allowed values.
    """
    rules = {"at_least": at_least, "at_most": at_most, "choices": choices}
    return dataclasses.field(default=default, metadata={"help": help, "parse": None, "repeat": False, **rules})


def check_settings(owner: Any) -> None:
    """Check every field of a dataclass that has rules in its metadata.

    Raises:
        ValueError: A value is out of its range. The message names the field.
    """
    for field in dataclasses.fields(owner):
        value, rules = getattr(owner, field.name), field.metadata
        choices, low, high = rules.get("choices"), rules.get("at_least"), rules.get("at_most")
        for element in value if isinstance(value, tuple) else (value,):
            if choices and element not in choices:
                raise ValueError(f"{field.name}={element}: expected {' or '.join(choices)}")
        for number in value if isinstance(value, tuple) else (value,):
            too_low = low is not None and number is not None and not number >= low
            if too_low or (high is not None and not number <= high):
                bounds = [f"at least {low:g}"] if low is not None else []
                bounds += [f"at most {high:g}"] if high is not None else []
                raise ValueError(f"{field.name}={number}: expected {' and '.join(bounds)}")


@dataclasses.dataclass(kw_only=True, repr=False, eq=False)
class ModelSettings:
    """Sizes and switches of the network, without its encoders.

    "As released" is what the authors' released code does; docs/method.md describes each of these switches.

    `slots`, `heads`: the default starts from what is known, so that training can only add; what follows `num_slots` is
    for slots=queries.
    `stack_init`: the layers of a stack start independently, or as copies of the first (released).
    `caption_vision_axis`: caption–vision vectors are normalised over features, or over tokens (released).
    `description_encoder`: descriptions are read by a frozen copy of the text tower, by the tower itself without
    gradient ("shared", released), or by the tower with gradient ("trained").
    """

    embed_dim: int = setting(0, "E, width of the shared space; 0: that of the text tower's summaries", at_least=0)
    heads: str = setting(
        "aligned",
        "aligned start as pretrained projections or the identity; random as released",
        choices=("aligned", "random"),
    )
    slots: str = setting(
        "views",
        "views: each description is a slot; queries read them all, as released",
        choices=("views", "queries", "none"),
    )
    media_dropout: float = setting(
        0.2,
        "probability, in the head of media whose tower has no projection, and half of it before",
        at_least=0,
        at_most=1,
    )
    view_dropout: float = setting(0.2, "probability that a view is missing in training", at_least=0, at_most=1)
    read_views: bool = setting(True, "the picture's vector reads the views; no: late fusion, and only the local part")
    trust: str = setting(
        "agreement",
        "in a view: learned by name and by agreement with the picture, or only by name, or equal",
        choices=("agreement", "name", "equal"),
    )
    read_start: float = setting(0.0, "share of the views' mean in the picture's vector at the start", at_least=0)
    num_slots: int = setting(4, "K, learned queries per item; 0: slots=none", at_least=0)
    slot_layers: int = setting(3, "L1, cross-attention layers that read the descriptions", at_least=1)
    interaction_layers: int = setting(2, "L2, cross-attention layers between slots and visual tokens", at_least=1)
    num_heads: int = setting(8, "heads of every cross-attention layer", at_least=1)
    dropout: float = setting(0.1, "probability, in feed-forward halves of those layers", at_least=0, at_most=1)
    attention_dropout: float = setting(0.0, "probability, of their weights; 0.1 as released", at_least=0, at_most=1)
    stack_init: str = setting("independent", "start of a stack's layers", choices=("independent", "copies"))
    slot_init: str = setting("normal", "start of slot queries; zero as released", choices=("normal", "zero"))
    normalize_slots: bool = setting(True, "unit-length slots in local matching; no as released")
    caption_vision_axis: str = setting("features", "axis to normalise", choices=("features", "tokens"))
    caption_vision_padding: bool = setting(
        False, "padded frames count in the caption–vision loss, as released for videos"
    )
    freeze: tuple[str, ...] = setting(
        (), "pretrained towers that are not trained: media, text or both", choices=("media", "text")
    )
    lora: int = setting(
        0, "rank of LoRA on the attention of pretrained towers, whose own weights are then frozen; 0: none", at_least=0
    )
    description_encoder: str = setting("frozen", "text tower for descriptions", choices=("frozen", "shared", "trained"))
    learned_temperature: str = setting(
        "log", "what is learned of τ: its logarithm, or tau itself, as released", choices=("log", "tau")
    )
    init_temperature: float = setting(
        0.05, "initial value of the learned τ; 0.07 as released", at_least=0.01, at_most=1
    )


@dataclasses.dataclass(frozen=True)
class ObjectiveConfig:
    """Weights and variants of the losses. Weights have no unit; temperatures divide a similarity.

    Teacher and student share one temperature by default, so that the distillation loss is zero exactly where a
    translation scores like its source. Both are fixed: a learned one could lower the loss without learning anything.

    `teacher`: "softmax" teaches both directions; "min_max" only texts to items, without temperatures.
    `teacher_orientation`: "mixed" adds a [text, item] matrix to an [item, text] one.
    `local_columns`: "rank" compares within this process, with own captions as the only positives.
    `caption_vision_columns`: "rank" compares within this process.
    `gather`: with "slice" only local rows get gradients, and every process takes the full loss.
    """

    own_weight: float = setting(1.0, "of texts and the picture's own vector, before it reads its views", at_least=0)
    local_weight: float = setting(1.0, "w_c, of local matching; 0.01 as released", at_least=0)
    caption_vision_weight: float = setting(0.0, "w_cv; 0.01 as released", at_least=0)
    source_target_weight: float = setting(0.0, "of captions and their translations; 1 as released", at_least=0)
    distillation_weight: float = setting(0.0, "w_d; items and target texts keep 1 − w_d", at_least=0, at_most=1)
    diversity_weight: float = setting(0.0, "w_r; 0.01 as released", at_least=0)
    teacher_weight: float = setting(0.8, "α, share of the global similarity in the teacher", at_least=0, at_most=1)
    teacher_temperature: float = setting(0.1, "divides the teacher's similarities", at_least=1e-4)
    student_temperature: float = setting(0.1, "divides the student's similarities", at_least=1e-4)
    caption_vision_temperature: float = setting(
        0.0, "divides caption–vision similarities; 0: the learned τ; 1 as released", at_least=0
    )
    caption_vision: str = setting("symmetric", "directions; slots: slots to media only", choices=("symmetric", "slots"))
    diversity: str = setting("squared", "cosines of slots; signed as released", choices=("squared", "signed"))
    teacher: str = setting("softmax", "soft targets; min_max as released", choices=("softmax", "min_max"))
    teacher_orientation: str = setting("same", "of its matrices; mixed as released", choices=("same", "mixed"))
    caption_vision_columns: str = setting(
        "all", "what the caption–vision loss compares with; rank as released for videos", choices=("all", "rank")
    )
    local_columns: str = setting("all", "what local matching compares with; rank as released", choices=("all", "rank"))
    gather: str = setting("autograd", "gradients of gathered rows; slice as released", choices=("autograd", "slice"))

    def __post_init__(self) -> None:
        check_settings(self)


RELEASED_WEIGHTS: dict[str, Any] = {
    "local_weight": 0.01,
    "distillation_weight": 0.5,
    "diversity_weight": 0.01,
    "source_target_weight": 1.0,
    "caption_vision_weight": 0.01,
    "caption_vision_temperature": 1.0,
}
FAITHFUL_OBJECTIVE: dict[str, Any] = {
    "caption_vision": "slots",
    "diversity": "signed",
    "teacher": "min_max",
    "teacher_orientation": "mixed",
    "local_columns": "rank",
    "gather": "slice",
}

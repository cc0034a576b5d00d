"""Every setting of a run: defaults, then the recipe, then `method=…`, then `key=value` overrides.

The model's settings (`model.settings.ModelSettings`) and those of the losses (`ObjectiveConfig`) have keys of the same
form. A setting is checked once, here; what depends on the data is checked where the data is opened.
"""

import dataclasses
import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from model.settings import FAITHFUL_OBJECTIVE, RELEASED_WEIGHTS, ModelSettings, ObjectiveConfig, check_settings
from pipeline.errors import UsageError
from pipeline.options import option, option_fields, parse_value, show_value
from stages.recipes import Recipe, faithful_settings, load_recipes

GLOBAL_WEIGHTS = tuple(tenth / 10 for tenth in range(11))
MODEL_DEFAULTS = {name: field.default for name, field in option_fields(ModelSettings).items()}
OBJECTIVE_DEFAULTS = dataclasses.asdict(ObjectiveConfig())


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings of a run. A field marked `free` does not change the result: a resumed run may have another value.

    Raises:
        UsageError: A value is out of its range.
    """

    recipe: str = option("base", "name of the recipe")
    method: str = option("corrected", "faithful: the released code, with its faults", choices=("corrected", "faithful"))

    data: tuple[str, ...] = option((), "corpora with a training table (--data)")
    languages: tuple[str, ...] = option((), "BCP 47 tags to train and validate; none: all that the split has")
    source_language: str = option("en", "BCP 47 tag of the captions that were translated")
    human_targets: bool = option(True, "train on human texts in target languages, where there are any")
    train_on: str = option("train", "split to train on")
    select_on: str = option("val", "split that selects the best weights; other than val gets a warning label")
    val_fraction: float = option(
        0.0, "share of split train to validate on, by content, in a corpus without a split val", at_least=0, at_most=0.5
    )
    extra_views: tuple[str, ...] = option((), "views that also serve as source captions; all: every view")
    slot_views: tuple[str, ...] = option(("all",), "views that the slots read; all: every view")
    cache_states: bool = option(True, "store what frozen encoders make of pictures and texts with the corpus")
    pair_weighting: bool = option(True, "weigh a pair by the quality of its translation")
    horizontal_flip: float = option(0.0, "probability that a training picture is mirrored", at_least=0, at_most=1)
    smallest_crop: float = option(
        1.0, "smallest share of a training picture that a random crop keeps; 1: no crop", at_least=0.05, at_most=1
    )

    media: str = option("tiny", "media encoder: tiny, embedded, features, or a model's name or folder")
    text: str = option("tiny", "text encoder: tiny, embedded, or a model's name or folder")
    init: str = option("", "finished run, or LECCR model, whose weights to start from; none: the encoders' own")
    tiny_width: int = option(64, "width of tiny encoders", at_least=8)
    tiny_layers: int = option(2, "layers of tiny encoders", at_least=1)
    tiny_patch: int = option(8, "pixels per side of a patch of the tiny media encoder", at_least=1)
    tiny_vocabulary: int = option(1000, "largest vocabulary of the tiny text encoder, in tokens", at_least=32)
    embedded_width: int = option(
        1280, "width that the embedded media encoder projects to; 1280: not projected", at_least=8
    )
    feature_width: int = option(512, "width that precomputed features are projected to", at_least=8)
    feature_reader: str = option(
        "transformer",
        "layers that read features; attention: at their own width and without positions, as released",
        choices=("transformer", "attention"),
    )
    feature_layers: int = option(1, "layers that read features over time", at_least=1)
    feature_frames: int = option(0, "largest number of frames of features per item; 0: all", at_least=0)
    image_size: int = option(0, "pixels per side of a picture; 0: as the encoder was trained", at_least=0)
    max_tokens: int = option(0, "largest number of tokens per text; 0: as the encoder allows", at_least=0)
    max_words: int = option(0, "largest number of words per text; 0: no limit", at_least=0)
    plain_captions: bool = option(False, "captions and queries lose capitals and ASCII punctuation")
    resize: str = option(
        "auto",
        "pictures become squares by a centred crop, or squashed; auto: as the encoder was trained",
        choices=("auto", "crop", "squash"),
    )

    batch_size: int = option(128, "samples per step over all processes, all compared with each other", at_least=2)
    micro_batch: int = option(0, "samples encoded at once per process (cached gradients); 0: all", at_least=0)
    epochs: int = option(10, "length of the run in epochs, unless steps is given", at_least=1)
    steps: int = option(0, "length of the run in steps; 0: given by epochs", at_least=0)
    lr: float = option(1e-5, "peak learning rate of pretrained layers", at_least=0)
    new_layer_lr_multiplier: float = option(10.0, "times lr: learning rate of other layers", at_least=0)
    weight_decay: float = option(0.01, "of AdamW; none for biases, norms and the scale", at_least=0)
    beta1: float = option(0.9, "AdamW's decay of the mean gradient", at_least=0, at_most=0.9999)
    beta2: float = option(0.98, "AdamW's decay of the squared gradient", at_least=0, at_most=0.9999)
    layer_decay: float = option(
        1.0, "times lr for each layer of a pretrained tower below its last", at_least=0.01, at_most=1
    )
    warmup: float = option(0.1, "share of the run in which the learning rate rises", at_least=0, at_most=1)
    schedule: str = option("linear", "how the learning rate falls to zero", choices=("linear", "cosine"))
    clip: float = option(1.0, "largest gradient norm; 0: no limit", at_least=0)
    ema: float = option(0.0, "decay per step of averaged weights, to be scored; 0: off", at_least=0, at_most=0.99999)
    mixed_precision: str = option("auto", "auto: bf16 on GPUs that have it", choices=("auto", "no", "bf16"))
    gradient_checkpointing: bool = option(
        False, "compute layers of pretrained towers twice in place of keeping what they computed", free=True
    )
    compile: bool = option(False, "torch.compile the model; results differ by rounding", free=True)
    seed: int = option(0, "of weights, order and dropout", at_least=0, at_most=2**31)

    validate_every: int = option(0, "steps between validations; 0: one epoch", at_least=0)
    patience: int = option(0, "validations without improvement that end the run; 0: never", at_least=0)
    global_weights: tuple[float, ...] = option(
        GLOBAL_WEIGHTS, "shares of the global similarity in the score to try in validation", at_least=0, at_most=1
    )
    save_every: int = option(0, "steps between checkpoints; 0: at each validation", at_least=0)
    log_every: int = option(10, "steps between lines of metrics.jsonl", at_least=1, free=True)
    eval_batch_size: int = option(128, "samples encoded at once per process in validation", at_least=1, free=True)
    workers: int = option(
        -1, "processes that load data, per training process; -1: up to 4 with a GPU, else 0", at_least=-1, free=True
    )
    log_with: tuple[str, ...] = option(
        (),
        "trackers; tensorboard writes RUN/tensorboard",
        choices=("tensorboard", "wandb", "mlflow", "trackio"),
        free=True,
    )
    log_project: str = option("leccr", "project, or experiment, that other trackers log to", free=True)

    model: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # of ModelSettings, where not the default
    objective: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # of ObjectiveConfig, likewise

    def __post_init__(self) -> None:
        try:
            check_settings(self)
            check_settings(ModelSettings(**self.model))
            self.objective_config()
        except ValueError as error:
            raise UsageError(str(error)) from error
        if not self.global_weights:
            raise UsageError("global_weights has no value: expected shares from 0 to 1, such as 0.8,1")

    def objective_config(self) -> ObjectiveConfig:
        """Weights and variants of the losses."""
        return ObjectiveConfig(**self.objective)

    def to_json(self) -> dict[str, Any]:
        """Every setting by its key, flat, with those of model and losses, defaults included."""
        own = {name: getattr(self, name) for name in option_fields(Settings)}
        every = own | MODEL_DEFAULTS | dict(self.model) | dataclasses.asdict(self.objective_config())
        return {name: list(value) if isinstance(value, tuple) else value for name, value in every.items()}

    def free(self) -> set[str]:
        """Names of the settings that do not change the result."""
        return {name for name, field in option_fields(Settings).items() if field.metadata.get("free")}


OWNERS = {name: owner for owner in (ObjectiveConfig, ModelSettings, Settings) for name in option_fields(owner)}


def resolve(recipe: str, overrides: Sequence[str] = (), **given: Any) -> Settings:
    """Resolve the settings of a run.

    Args:
        recipe: Name of the recipe.
        overrides: `key=value` as typed on the command line.
        **given: Settings with an option of their own on the command line.

    Raises:
        UsageError: The recipe or a key is unknown (the message names the nearest), or a value is not allowed.
    """
    typed = dict(given) | dict(map(_parse_override, overrides))
    changes = find_recipe(recipe).settings
    weights, preset = dict[str, Any](), dict[str, Any]()
    if typed.get("method", changes.get("method")) == "faithful":
        weights = RELEASED_WEIGHTS | {"init_temperature": 0.07}
        preset = FAITHFUL_OBJECTIVE | faithful_settings(typed.get("media", changes.get("media")) == "features")
    values: dict[str, Any] = {"recipe": recipe, **weights, **changes, **preset, **typed}
    if values.get("num_slots") == 0:
        if typed.get("slots", "none") != "none":
            raise UsageError(f"num_slots=0 means slots=none, but slots={typed['slots']} was given: leave one out")
        values |= {"slots": "none", "num_slots": MODEL_DEFAULTS["num_slots"]}
    for name in values:
        _check_name("setting", name, OWNERS)

    def changed(defaults: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in values.items() if name in defaults and value != defaults[name]}

    own = {name: value for name, value in values.items() if OWNERS[name] is Settings}
    return Settings(**own, model=changed(MODEL_DEFAULTS), objective=changed(OBJECTIVE_DEFAULTS))


def find_recipe(name: str) -> Recipe:
    """A recipe by name; raises UsageError with the nearest name for an unknown one."""
    _check_name("recipe", name, load_recipes())
    return load_recipes()[name]


def describe_settings() -> str:
    """All keys with default and meaning, for --help."""
    lines = []
    for owner in (Settings, ModelSettings, ObjectiveConfig):
        for name, field in option_fields(owner).items():
            if name not in ("recipe", "data"):
                lines.append(f"  {name + '=' + show_value(field.default):<36} {field.metadata['help']}")
    return "\n".join(lines)


def _parse_override(override: str) -> tuple[str, Any]:
    name, sign, text = override.partition("=")
    if not sign:
        raise UsageError(f"{override!r} is not a setting: write key=value, for example epochs=20")
    if name in ("recipe", "data"):
        raise UsageError(f"{override}: use --{name} instead")
    _check_name("setting", name, OWNERS)
    if not text and isinstance(getattr(OWNERS[name], name, None), str):
        return name, ""
    try:
        return name, parse_value(OWNERS[name], name, text)
    except ValueError as error:
        raise UsageError(f"{name}: {error}") from error


def _check_name(kind: str, name: str, known: Iterable[str]) -> None:
    if name not in known:
        near = difflib.get_close_matches(name, list(known), 1, 0.5)
        guess = f" (did you mean {near[0]!r}?)" if near else ""
        raise UsageError(f"unknown {kind} {name!r}: --help lists them all{guess}")

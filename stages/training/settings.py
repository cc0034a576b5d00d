"""Every setting of a run, with its unit: defaults, then the recipe, then `method=…`, then `key=value` overrides.

The model's settings (`model.config.LeccrConfig`) and the objective's (`model.objective.ObjectiveConfig`) are reached by
the same keys. A setting is checked once, here; what depends on the data is checked where the data is opened.
"""

import dataclasses
import difflib
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from types import MappingProxyType, ModuleType
from typing import Any

from model.config import LeccrConfig
from model.objective import ObjectiveConfig
from pipeline.errors import UsageError

METHODS = ("corrected", "faithful")
# What the released code does and no default does. With pretrained towers, whose `shared` text tower is trained.
FAITHFUL: Mapping[str, Any] = MappingProxyType(
    {
        "slot_init": "zero",
        "stack_init": "copies",
        "attention_dropout": 0.1,
        "normalize_slots": False,
        "caption_vision_axis": "tokens",
        "description_encoder": "shared",
        "new_layer_lr_multiplier": 1.0,
        "horizontal_flip": 0.5,
        "truncate_training_texts": False,
        "global_weights": (1.0,),
        "select_on": "test",
        "pair_weighting": False,
        "max_words": 30,
    }
)
# of LeccrConfig: they follow from `media` and `text`, or are chosen on validation
NOT_SETTINGS = {"media_encoder", "text_encoder", "model_type", "global_weight"}


def option(default: Any, unit: str, told: str, *, least: float | None = None, most: float | None = None, **more: Any):
    """A setting. `choices`: its only values; `free`: a run may go on with another value, its result is the same."""
    metadata = {"unit": unit, "told": told, "least": least, "most": most, **more}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Settings:
    """A run's settings, checked. Raises UsageError for a value out of its range."""

    recipe: str = option("base", "name", "the recipe that these settings come from")
    method: str = option("corrected", "name", "or faithful: as the released code, its faults included", choices=METHODS)

    data: tuple[str, ...] = option((), "folders", "corpora with a table training (--data)")
    languages: tuple[str, ...] = option((), "BCP 47 tags", "to train and validate; none given: all that train has")
    source_language: str = option("en", "BCP 47 tag", "of the captions that were translated")
    human_targets: bool = option(True, "yes or no", "human texts in the other languages are trained on where there are")
    train_on: str = option("train", "split", "that is trained on")
    select_on: str = option("val", "split", "that chooses the best weights; anything but val is labelled loudly")
    extra_views: tuple[str, ...] = option((), "views", "descriptions that are source captions too; all: every view")
    slot_views: tuple[str, ...] = option(("all",), "views", "descriptions that the slots read; all: every view")
    cache_states: bool = option(True, "yes or no", "keep what a frozen description encoder says with the corpus")
    pair_weighting: bool = option(True, "yes or no", "weigh a pair by its translation's quality")
    horizontal_flip: float = option(0.0, "probability", "that a training picture is mirrored", least=0, most=1)

    media: str = option("tiny", "name or folder", "vision tower: tiny, embedded, features, a name or a folder")
    text: str = option("tiny", "name or folder", "text tower: tiny, embedded, a name on the Hub or a folder")
    tiny_width: int = option(64, "features", "width of tiny towers", least=8)
    tiny_layers: int = option(2, "layers", "of tiny towers", least=1)
    tiny_patch: int = option(8, "pixels", "edge of a patch of the tiny vision tower", least=1)
    tiny_vocabulary: int = option(1000, "tokens", "most that the tiny text tower's tokenizer learns", least=32)
    embedded_width: int = option(256, "features", "that the embedded vision tower's grid is projected to", least=8)
    feature_width: int = option(512, "features", "that features computed before are projected to", least=8)
    feature_layers: int = option(1, "layers", "that read them over time", least=1)
    feature_frames: int = option(0, "frames", "most of an item, uniform in time; 0: as the longest has", least=0)
    image_size: int = option(0, "pixels", "edge that pictures are resized to; 0: what the tower wants", least=0)
    max_tokens: int = option(0, "tokens", "longest text; 0: what the tower takes", least=0)
    max_words: int = option(0, "words", "longest text before it is tokenised; 0: any", least=0)
    truncate_training_texts: bool = option(True, "yes or no", "max_words holds in training too")

    batch_size: int = option(128, "samples over all processes", "effective batch: every one is compared", least=2)
    micro_batch: int = option(0, "samples a process", "encoded at once, by cached gradients; 0: all", least=0)
    epochs: int = option(10, "epochs", "length of the run, unless steps is given", least=1)
    steps: int = option(0, "steps", "length of the run; 0: as many as epochs have", least=0)
    lr: float = option(1e-5, "per step", "peak learning rate of pretrained layers", least=0)
    new_layer_lr_multiplier: float = option(10.0, "times lr", "learning rate of layers that start at random", least=0)
    weight_decay: float = option(0.01, "per lr", "AdamW's; none for biases, norms and the scale", least=0)
    beta1: float = option(0.9, "per step", "AdamW's decay of the mean gradient", least=0, most=0.9999)
    beta2: float = option(0.98, "per step", "AdamW's decay of the squared gradient", least=0, most=0.9999)
    warmup: float = option(0.1, "share of the run", "in which the learning rate rises", least=0, most=1)
    schedule: str = option("linear", "name", "how it falls to zero afterwards", choices=("linear", "cosine"))
    clip: float = option(1.0, "norm", "largest gradient; 0: any", least=0)
    ema: float = option(0.0, "per step", "decay of averaged weights, which are then what is scored; 0: off", least=0)
    mixed_precision: str = option("auto", "name", "auto: bf16 where a GPU has it", choices=("auto", "no", "bf16"))
    seed: int = option(0, "number", "of weights, order and dropout", least=0, most=2**31)

    validate_every: int = option(0, "steps", "between validations; 0: one epoch", least=0)
    patience: int = option(0, "validations", "without a better one that end the run; 0: never", least=0)
    global_weights: tuple[float, ...] = option(
        (0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0), "shares", "of the global similarity in the score, tried at validation"
    )
    save_every: int = option(0, "steps", "between checkpoints; 0: one at each validation", least=0)
    log_every: int = option(10, "steps", "between training lines of metrics.jsonl", least=1, free=True)
    eval_batch_size: int = option(128, "samples a process", "encoded at once in validation", least=1, free=True)
    workers: int = option(0, "processes", "that load data, for each training process", least=0, free=True)
    tensorboard: bool = option(False, "yes or no", "write RUN/tensorboard", free=True)
    wandb: str = option("", "project", "of Weights & Biases to log to; none given: off", free=True)

    model: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # of LeccrConfig, where not its default
    objective: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # of ObjectiveConfig, likewise

    def __post_init__(self) -> None:
        for field in _own_fields():
            value, rule = getattr(self, field.name), field.metadata
            if rule.get("choices") and value not in rule["choices"]:
                raise UsageError(f"{field.name}: got {value!r}, wanted {' or '.join(rule['choices'])}")
            least, most = rule["least"], rule["most"]
            if (least is not None and not value >= least) or (most is not None and not value <= most):
                wanted = f"from {least} to {most}" if most is not None else f"{least} or more"
                raise UsageError(f"{field.name}: got {value}, wanted {wanted} ({rule['unit']})")
        if not self.ema < 1:
            raise UsageError(f"ema: got {self.ema}, wanted less than 1 (decay a step; .999 averages a thousand steps)")
        if not self.global_weights or not all(0 <= weight <= 1 for weight in self.global_weights):
            raise UsageError(f"global_weights: got {self.global_weights}, wanted shares from 0 to 1")
        try:
            LeccrConfig(**self.model)
            self.objective_config()
        except ValueError as error:
            raise UsageError(str(error)) from error

    def objective_config(self) -> ObjectiveConfig:
        return ObjectiveConfig(**self.objective)

    def leccr_config(self) -> dict[str, Any]:
        """What `LeccrModel.create` is given beside the two towers."""
        return dict(self.model)

    def to_json(self) -> dict[str, Any]:
        """Every setting by its key, flat, with the model's and the objective's, defaults too."""
        own = {field.name: getattr(self, field.name) for field in _own_fields()}
        own = {name: list(value) if isinstance(value, tuple) else value for name, value in own.items()}
        return own | _model_defaults() | dict(self.model) | dataclasses.asdict(self.objective_config())

    def model_keys(self) -> list[str]:
        """Settings that are the model's."""
        return list(_model_defaults())

    def free(self) -> set[str]:
        """Settings that another value of changes nothing in the result."""
        return {field.name for field in _own_fields() if field.metadata.get("free")}


@cache
def _own_fields() -> tuple[dataclasses.Field, ...]:
    return tuple(field for field in dataclasses.fields(Settings) if field.metadata)


def resolve(recipe: str, overrides: Sequence[str] = (), **given: Any) -> Settings:
    """Defaults, then the recipe, then the preset `method` names, then `given` and the overrides (`key=value`).

    Raises UsageError for an unknown recipe or key, with the nearest spelling, and for a value of another type.
    """
    asked = dict(given) | dict(map(_parsed, overrides))
    changes = recipe_module(recipe).recipe()
    method = asked.get("method", changes.get("method", "corrected"))
    preset = dict(FAITHFUL) | _objective_preset() if method == "faithful" else {}
    values: dict[str, Any] = {"recipe": recipe, **changes, **preset, **asked}
    for name in values:
        _check_key(name)
    inner = {"model": _model_defaults(), "objective": _objective_defaults()}
    own = {name: value for name, value in values.items() if not any(name in part for part in inner.values())}
    parts = {
        part: {name: values[name] for name in defaults if name in values and values[name] != defaults[name]}
        for part, defaults in inner.items()
    }
    return Settings(**own | parts)


def recipes() -> dict[str, str]:
    """Name and first line of every recipe."""
    import stages.recipes as folder

    names = sorted(module.name for module in pkgutil.iter_modules(folder.__path__))
    return {name: (recipe_module(name).__doc__ or "").strip().splitlines()[0] for name in names}


def recipe_module(name: str) -> ModuleType:
    import stages.recipes as folder

    names = sorted(module.name for module in pkgutil.iter_modules(folder.__path__))
    if name not in names:
        raise UsageError(f"--recipe: got {name!r}, wanted one of {', '.join(names)}{_nearest(name, names)}")
    return importlib.import_module(f"stages.recipes.{name}")


def described() -> str:
    """All keys with unit, default and meaning, for --help."""
    lines = []
    for field in _own_fields():
        if field.name not in ("recipe", "data"):
            told = f"{field.metadata['told']} [{field.metadata['unit']}]"
            lines.append(_described_line(field.name, _shown(field.default), told))
    for defaults, owner in ((_model_defaults(), LeccrConfig), (_objective_defaults(), ObjectiveConfig)):
        told_by = comments(owner)
        lines += [
            _described_line(name, _shown(default), told_by.get(name, "no unit")) for name, default in defaults.items()
        ]
    return "\n".join(lines)


def comments(owner: type) -> dict[str, str]:
    """The comment that stands beside each field of a class: written once, shown as its help too."""
    found = re.findall(r"^    (\w+): [^=\n]+ = [^#\n]+  # (.+)$", inspect.getsource(owner), re.MULTILINE)
    return dict(found)


def _described_line(name: str, default: str, told: str) -> str:
    return f"  {name + '=' + default:<36} {told}"


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


@cache
def _model_defaults() -> dict[str, Any]:
    names = [name for name in LeccrConfig.__annotations__ if name not in NOT_SETTINGS]
    return {name: getattr(LeccrConfig, name) for name in names}


@cache
def _objective_defaults() -> dict[str, Any]:
    return dataclasses.asdict(ObjectiveConfig())


def _objective_preset() -> dict[str, Any]:
    """What the released code does otherwise; its weights are the recipe's affair."""
    return {
        name: value
        for name, value in dataclasses.asdict(ObjectiveConfig.faithful()).items()
        if value != _objective_defaults()[name]
    }


@cache
def _defaults() -> dict[str, Any]:
    own = {field.name: field.default for field in _own_fields()}
    return own | _model_defaults() | _objective_defaults()


def _parsed(override: str) -> tuple[str, Any]:
    name, sign, text = override.partition("=")
    if not sign:
        raise UsageError(f"got {override!r}, wanted key=value, for example epochs=20")
    if name in ("recipe", "data"):
        raise UsageError(f"got {override!r}: give --{name} instead")
    _check_key(name)
    return name, typed(name, text)


def typed(name: str, text: str) -> Any:
    """`text` as a value of the setting's type. Raises UsageError for one that is none."""
    default = _defaults()[name]
    wanted = "yes or no"
    if isinstance(default, bool):
        value = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}.get(text.lower())
        if value is not None:
            return value
    elif isinstance(default, tuple):
        parts = [part.strip() for part in text.split(",") if part.strip()]
        if not default or isinstance(default[0], str):
            return tuple(parts)
        wanted = "numbers with commas between them"
        if None not in (numbers := [_number(part, float) for part in parts]):
            return tuple(numbers)
    elif isinstance(default, int | float):
        kind = type(default)
        wanted = "a whole number" if kind is int else "a number"
        if (number := _number(text, kind)) is not None:
            return number
    else:
        return text
    raise UsageError(f"{name}: got {text!r}, wanted {wanted}")


def _number(text: str, kind: type) -> Any:
    """A finite number, or None."""
    try:
        value = kind(text)
    except ValueError:
        return None
    return value if abs(value) < float("inf") else None


def _check_key(name: str) -> None:
    if name not in _defaults():
        raise UsageError(f"got an unknown setting {name!r}{_nearest(name, _defaults())}; --help lists them all")


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), 1, 0.5)
    return f": did you mean {near[0]!r}?" if near else ""

"""The checkpoint loader of every program: finds the weights of a run, a model folder or a model on the Hub."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline.corpus.table import read_json
from pipeline.errors import UsageError

if TYPE_CHECKING:  # imports torch
    from model.fusion import Fusion

EMBEDDED = "embedded"  # the name, and the type, of the encoders in the wheel
SENTENCE, SERVER, OPEN_CLIP = "sentence-transformers", "server", "open_clip"  # models that make vectors themselves
TRANSLATE = "translate:"  # before the name of a model: queries are translated to English first
CONFIG, BEST, LECCR = "config.json", "best", "leccr"
MODULES = "modules.json"  # a folder with this is a model of Sentence Transformers
OPEN_CLIP_HUB, OPEN_CLIP_FOLDER = "hf-hub:", "local-dir:"  # before the name of a model of open_clip, as it has them
RUN_RECORD, RUN_SETTINGS, RUN_CHECKPOINTS = "record.json", "settings.json", "checkpoints"


# A model with LECCR's interface, float32, on the CPU; its processor; and how its score is made of its parts, None for a
# dual encoder.
LoadedModel = tuple[Any, Any, "Fusion | None"]


class Checkpoint(NamedTuple):
    """Weights on disk or on the Hub.

    Attributes:
        name: As the user typed it.
        source: Folder, or name on the Hub.
        model_type: From the model's configuration.
        record: The record of the run that the weights are the best of, if any.
    """

    name: str
    source: str
    model_type: str
    record: dict[str, Any] | None

    @property
    def slot_views(self) -> tuple[str, ...]:
        """The views that the slots read in the run; empty for every view."""
        return self._own_views or tuple((self.record or {}).get("settings", {}).get("slot_views", ()))

    @property
    def val_fraction(self) -> float:
        """The share of split train that was split val in the run."""
        return float((self.record or {}).get("settings", {}).get("val_fraction", 0))

    @property
    def _own_views(self) -> tuple[str, ...]:
        path = Path(self.source) / CONFIG
        return tuple(read_json(path).get("views") or ()) if path.is_file() else ()

    def align_views(self, views: tuple[str, ...]) -> tuple[str, ...]:
        """These views in the order in which the model weighs its own, "" in place of one that is left out.

        `none` leaves out all.

        Raises:
            UsageError: The model does not know one of them.
        """
        own = self._own_views
        if views == ("none",):
            return ("",) * max(1, len(own))
        if not own or "all" in views:
            return own or views
        if unknown := sorted(set(views) - set(own)):
            raise UsageError(f"--slot-views {','.join(unknown)}: {self.name} reads {', '.join(own)}")
        return tuple(view if view in views else "" for view in own)

    @property
    def notes(self) -> list[str]:
        """Warnings that belong next to every score of these weights, such as a best step chosen on the test split."""
        label = (self.record or {}).get("label")
        return [label] if label else []

    def summary(self) -> dict[str, Any]:
        """What the weights are, the recipe and method of their run, and the validation that selected them."""
        best = (self.record or {}).get("best")
        settings = (self.record or {}).get("settings", {})
        return {
            "name": self.name,
            "source": self.source,
            "model_type": self.model_type,
            "selection": {key: best[key] for key in ("split", "step", "sum_r", "global_weight")} if best else None,
            "recipe": settings.get("recipe", ""),
            "method": settings.get("method", ""),
        }

    def write_card(self, comparison: Mapping[str, Any]) -> None:
        """Write a comparison of `split`, `items` and `arms` into the card of a run's best weights."""
        from model.card import card

        if not self.record:
            raise UsageError(f"--card: {self.name} is not a run, which has a card")
        record = {**self.record, "validation": self.record.get("best"), "comparison": comparison}
        for suffix in ("", "-st"):
            if (folder := Path(self.source + suffix)).is_dir():
                (folder / "README.md").write_text(card(record, stock=bool(suffix)), "utf-8")

    def load(self) -> LoadedModel:
        """Load model and processor.

        Raises:
            UsageError: Files are missing or damaged, or the model is of another kind.
        """
        from safetensors import SafetensorError

        try:
            return self._load()
        except (OSError, ValueError, SafetensorError) as error:
            raise UsageError(f"--checkpoint {self.name}: cannot be loaded: {str(error).splitlines()[0]}") from error

    def _load(self) -> LoadedModel:
        if self.model_type == EMBEDDED:
            from model.fusion import Fusion
            from stages.scoring.baselines import DescribedTowers, VectorProcessor, VectorTowers
            from stages.scoring.zero_shot import DESCRIPTIONS, EmbeddedEncoder

            fusion = Fusion(1 / (1 + DESCRIPTIONS), "max")
            return DescribedTowers(VectorTowers()), VectorProcessor(EmbeddedEncoder()), fusion
        if self.model_type in (SENTENCE, SERVER, OPEN_CLIP):
            return self._load_vectors()
        if self.model_type != LECCR:
            from stages.scoring.baselines import load_baseline

            return *load_baseline(self.source), None
        from model.modeling import LeccrModel
        from model.processing import LeccrProcessor

        model: Any = LeccrModel.from_pretrained(self.source)
        return model.float(), LeccrProcessor.from_pretrained(self.source), model.config.fusion

    def _load_vectors(self) -> LoadedModel:
        """A model that makes vectors itself; one that reads no pictures compares queries only with descriptions."""
        from model.encoders.vector_models import OpenClipModel, SentenceModel
        from model.fusion import Fusion
        from stages.scoring.baselines import DescribedTowers, VectorEncoder, VectorProcessor, VectorTowers
        from stages.scoring.embedding_server import EmbeddingServer

        kinds: dict[str, Any] = {SENTENCE: SentenceModel, SERVER: EmbeddingServer, OPEN_CLIP: OpenClipModel}
        encoder: VectorEncoder = kinds[self.model_type](self.source)
        if getattr(encoder, "reads_pictures", True):
            return VectorTowers(), VectorProcessor(encoder), None
        return DescribedTowers(VectorTowers()), VectorProcessor(encoder), Fusion(0.0, "max")


def find_checkpoint(name: str, option: str = "--checkpoint ") -> Checkpoint:
    """Find weights by name, without loading them.

    Args:
        name: A run folder (its best weights), a model folder, a model's name on the Hub, `embedded`, the address of a
            server with OpenAI's embeddings API, or a model of open_clip as that package names it.
        option: What the user gave it with, for messages.

    Raises:
        UsageError: There are no such weights. The message says what is missing.
    """
    if name == EMBEDDED:
        return Checkpoint(name, name, EMBEDDED, None)
    if name.startswith(("http://", "https://")):
        return Checkpoint(name, name, SERVER, None)
    if name.startswith((OPEN_CLIP_HUB, OPEN_CLIP_FOLDER)):
        return Checkpoint(name, name, OPEN_CLIP, None)
    path = Path(name).expanduser()
    base, _, dimensions = name.partition("@")
    folder, run = (path / BEST, path) if (path / BEST / CONFIG).is_file() else (path, path.parent)
    model_type = str((read_json(folder / CONFIG) or {}).get("model_type"))
    if (folder / CONFIG).is_file() and (model_type == LECCR or not (folder / MODULES).is_file()):
        return Checkpoint(name, str(folder), model_type, read_json(run / RUN_RECORD) if folder.name == BEST else None)
    if (Path(base).expanduser() / MODULES).is_file():
        return Checkpoint(name, str(path), SENTENCE, None)
    if (path / RUN_CHECKPOINTS).is_dir() or (path / RUN_SETTINGS).is_file():
        raise UsageError(f"{option}{name}: it has no {path / BEST} yet: wait, or name one of its checkpoints")
    if (path / "open_clip_config.json").is_file():
        return Checkpoint(name, f"{OPEN_CLIP_FOLDER}{path}", OPEN_CLIP, None)
    from transformers.utils.hub import cached_file

    from model.hub import locate_model

    try:
        located = locate_model(base, [EMBEDDED])
        config, modules = (
            cached_file(located, file, _raise_exceptions_for_missing_entries=False) for file in (CONFIG, MODULES)
        )
    except (OSError, ValueError) as error:
        raise UsageError(f"{option}{str(error).splitlines()[0]}") from error
    model_type = str(read_json(Path(config)).get("model_type")) if config else ""
    if model_type != LECCR and (dimensions or modules):
        return Checkpoint(name, f"{located}{name.removeprefix(base)}", SENTENCE, None)
    return Checkpoint(name, located, model_type, None)

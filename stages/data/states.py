"""States of a frozen description encoder, computed once and kept with the corpus:

    CORPUS/states/FINGERPRINT/part-…arrow    a row for each of `training`, in its order: states as float16, T × C

The fingerprint covers all that they depend on: the encoder's weights, how texts are read, which views. A shard whose
`training` shard changed is made again.
"""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from model.batch import Texts
from model.modeling import LeccrModel
from model.processing import LeccrProcessor
from pipeline.corpus.table import read_json, read_shard, shard_name, write_json, write_shard
from pipeline.errors import EnvironmentTrouble
from pipeline.hashing import canonical_json, short_hash
from stages.data.samples import ALL, Shards, select_views

FOLDER = "states"
BATCH = 64  # items encoded at once
MADE_FROM = "training_sha256"
SCHEMA = pa.schema(
    [
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("tokens", pa.int32(), nullable=False),  # T; 0 where there is no description
        pa.field("states", pa.large_binary(), nullable=False),  # float16, row-major
    ]
)


class States:
    """The states of corpora, opened for reading, memory-mapped."""

    def __init__(self, folders: Sequence[Path], shards: Shards, width: int):
        self.width = width
        self.paths = [
            folder / shard_name(index, table.num_shards)
            for folder, table in zip(folders, shards.tables, strict=True)
            for index in range(table.num_shards)
        ]
        self._open: dict[int, pa.Table] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}

    def texts(self, places: Sequence[tuple[int, int]]) -> Texts:
        """[B,T,C] of rows given as (shard, row), float16 as they lie: half of what a worker hands over, and the model
        takes them to its own precision."""
        rows = [self._row(number, row) for number, row in places]
        length = max(1, *(len(row) for row in rows))
        tokens_BTC = np.zeros((len(rows), length, self.width), np.float16)
        for place, row_TC in enumerate(rows):
            tokens_BTC[place, : len(row_TC)] = row_TC
        lengths = torch.tensor([len(row_TC) for row_TC in rows])
        return Texts(torch.from_numpy(tokens_BTC), torch.arange(length)[None] < lengths[:, None])

    def _row(self, number: int, row: int) -> np.ndarray:
        if number not in self._open:
            self._open[number] = read_shard(self.paths[number], remedy="train again")
        data = self._open[number].column("states")[row].as_buffer()
        return np.frombuffer(data, np.float16).reshape(-1, self.width)


def ensure_states(
    corpora: Sequence[Path],
    model: LeccrModel,
    processor: LeccrProcessor,
    *,
    slot_views: Sequence[str] = (),
    rank: int = 0,
    world: int = 1,
    say: Callable[[str], Any] = print,
) -> States:
    """The states of every shard; what is missing is made, each rank its share. Others may only read once all ranks are
    back: the caller waits for them.

    Raises EnvironmentTrouble where they cannot be written.
    """
    shards = Shards(corpora)
    views = tuple(slot_views) or (ALL,)
    name = short_hash(canonical_json([_weights_hash(model), _reading(processor), list(views)]))
    folders = [table.corpus / FOLDER / name for table in shards.tables]
    number = 0
    for folder, table in zip(folders, shards.tables, strict=True):
        for index, entry in enumerate(table.manifest["shards"]):
            path = folder / shard_name(index, table.num_shards)
            if number % world == rank and not _whole(path, entry["sha256"]):
                states = _encoded(shards.shard(number), views, model, processor)
                size = _keep(path, states, entry["sha256"])
                told = f"{table.corpus.name}, shard {index + 1:,} of {table.num_shards:,}: {size / 2**20:,.1f} MiB"
                say(f"states of descriptions: {told}")
            number += 1
    return States(folders, shards, model.text_encoder.width)


def _keep(path: Path, states: pa.Table, sha256: str) -> int:
    """Write a shard, and what it was made from; its bytes."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        written = write_shard(path, states)
        write_json(path.with_suffix(".json"), {MADE_FROM: sha256, **written})
    except OSError as error:
        raise EnvironmentTrouble(
            f"{path}: states of descriptions cannot be kept ({error.strerror}): make room, or set cache_states=no"
        ) from error
    return written["bytes"]


def _whole(path: Path, sha256: str) -> bool:
    made = read_json(path.with_suffix(".json"))
    return bool(made) and made[MADE_FROM] == sha256 and path.exists() and path.stat().st_size == made["bytes"]


def _encoded(shard: pa.Table, views: Sequence[str], model: LeccrModel, processor: LeccrProcessor) -> pa.Table:
    device = model.log_scale.device
    descriptions = shard.column("descriptions")
    counts, states = [], []
    for start in range(0, shard.num_rows, BATCH):
        texts = processor.descriptions(
            [select_views(row, views) for row in descriptions.slice(start, BATCH).to_pylist()]
        )
        with torch.inference_mode():
            found = model.describe_states(Texts(*(part.to(device) for part in texts)))
        for row_TC, mask_T in zip(*(part.cpu() for part in found), strict=True):
            kept = row_TC[mask_T].to(torch.float16)
            counts.append(len(kept))
            states.append(kept.numpy().tobytes())
    columns = [
        shard.column("item_id").combine_chunks(),
        pa.array(counts, pa.int32()),
        pa.array(states, pa.large_binary()),
    ]
    return pa.table(columns, schema=SCHEMA)


def _reading(processor: LeccrProcessor) -> list[Any]:
    """All that says how a description becomes tokens. A tokenizer's own file names the folder it was read from."""
    policy, tokenizer = processor.policy, processor.tokenizer
    if policy.kind == "tiny":
        vocabulary: Any = hashlib.sha256(tokenizer).hexdigest()
    else:
        vocabulary = sorted(tokenizer.get_vocab().items()) if tokenizer else None
    return [policy.kind, policy.max_tokens, policy.pad_to, policy.lower_case, vocabulary]


def _weights_hash(model: LeccrModel) -> str:
    """Of the frozen encoder; of one without weights, its spec says all."""
    digest = hashlib.sha256(canonical_json(model.config.text_encoder).encode())
    if model.description_encoder is not None:
        for name, weights in sorted(model.description_encoder.state_dict().items()):
            digest.update(name.encode())
            digest.update(weights.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()

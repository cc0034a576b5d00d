"""States of a frozen description encoder, computed once and stored with the corpus.

    CORPUS/states/FINGERPRINT/part-…arrow    one row per row of `training`, in its order: states as float16, T × C

The fingerprint covers everything they depend on: the encoder's weights, how texts are read, which views. If a
`training` shard changes, its states are computed again.
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
from stages.data.samples import Shards, select_views

FOLDER = "states"
BATCH = 64  # items encoded at once
ORIGIN = "training_sha256"
SCHEMA = pa.schema(
    [
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("tokens", pa.int32(), nullable=False),  # T; 0 without a description
        pa.field("states", pa.large_binary(), nullable=False),  # float16, row-major
    ]
)


class States:
    """Stored states of corpora, memory-mapped.

    Args:
        paths: A file of states for each shard.
        width: C.
    """

    def __init__(self, paths: Sequence[Path], width: int):
        self.paths, self.width = paths, width
        self._open: dict[int, pa.Table] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}

    def texts(self, places: Sequence[tuple[int, int]]) -> Texts:
        """States [B,T,C] of rows given as (shard, row); a state that is all zeros is absent.

        In float16 as stored, which halves what loader workers pass on; the model converts them to its own precision.
        """
        rows = [self._row(number, row) for number, row in places]
        lengths = torch.tensor([len(row_TC) for row_TC in rows])
        tokens_BTC = np.zeros((len(rows), max(1, int(lengths.max())), self.width), np.float16)
        for tokens_TC, row_TC in zip(tokens_BTC, rows, strict=True):
            tokens_TC[: len(row_TC)] = row_TC
        return Texts(torch.from_numpy(tokens_BTC), torch.from_numpy(tokens_BTC.any(-1)))

    def _row(self, number: int, row: int) -> np.ndarray:
        if number not in self._open:
            self._open[number] = read_shard(self.paths[number], remedy="train again")
        return np.frombuffer(self._open[number].column("states")[row].as_buffer(), np.float16).reshape(-1, self.width)


def ensure_states(
    shards: Shards,
    model: LeccrModel,
    processor: LeccrProcessor,
    views: Sequence[str],
    rank: int = 0,
    world: int = 1,
    say: Callable[[str], Any] = print,
) -> States:
    """Compute the states that are missing and open all of them.

    Each rank computes its share; the caller waits for all ranks before it reads.

    Args:
        shards: The corpora.
        model: Model with a frozen description encoder.
        processor: Reads the descriptions.
        views: Views to encode, see `select_views`.
        rank: This rank.
        world: Number of ranks.
        say: Reports each shard.

    Raises:
        EnvironmentTrouble: They cannot be written.
    """
    kind = "summaries" if model.config.slots == "views" else "tokens"
    name = short_hash(canonical_json([_weights_hash(model), _text_policy(processor), list(views), kind]))
    paths = []
    for number, (table, index) in enumerate(shards.places):
        path = table.corpus / FOLDER / name / shard_name(index, table.num_shards)
        paths.append(path)
        sha256 = table.manifest["shards"][index]["sha256"]
        if number % world == rank and not _is_complete(path, sha256):
            states = _encode(shards.shard(number), views, model, processor)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                entry = write_shard(path, states)
                write_json(path.with_suffix(".json"), {ORIGIN: sha256, **entry})
            except OSError as error:
                raise EnvironmentTrouble(
                    f"{path}: the states cannot be written ({error.strerror}): free disk space, or set cache_states=no"
                ) from error
            shard = f"{table.corpus.name}, shard {index + 1:,} of {table.num_shards:,}"
            say(f"states of descriptions: {shard}: {entry['bytes'] / 2**20:,.1f} MiB")
    encoder = model.text_encoder
    return States(paths, encoder.pooled_width if model.config.slots == "views" else encoder.width)


def _is_complete(path: Path, sha256: str) -> bool:
    entry = read_json(path.with_suffix(".json"))
    return bool(entry) and entry[ORIGIN] == sha256 and path.exists() and path.stat().st_size == entry["bytes"]


def _encode(shard: pa.Table, views: Sequence[str], model: LeccrModel, processor: LeccrProcessor) -> pa.Table:
    device = model.log_scale.device
    descriptions = shard.column("descriptions")
    states = []
    for start in range(0, shard.num_rows, BATCH):
        texts = processor.descriptions(
            [select_views(row, views) for row in descriptions.slice(start, BATCH).to_pylist()]
        )
        with torch.inference_mode():
            encoded = model.describe_states(Texts(*(part.to(device) for part in texts)))
        for row_TC, mask_T in zip(*(part.cpu() for part in encoded), strict=True):
            row_TC = row_TC * mask_T[:, None] if model.config.slots == "views" else row_TC[mask_T]
            states.append(row_TC.to(torch.float16).numpy())
    columns = [
        shard.column("item_id").combine_chunks(),
        pa.array(map(len, states), pa.int32()),
        pa.array([row_TC.tobytes() for row_TC in states], pa.large_binary()),
    ]
    return pa.table(columns, schema=SCHEMA)


def _text_policy(processor: LeccrProcessor) -> list[Any]:
    """What decides how a description becomes tokens. A tokenizer's file names its folder, so it cannot be hashed."""
    policy, tokenizer = processor.policy, processor.tokenizer
    if policy.kind == "tiny":
        vocabulary: Any = hashlib.sha256(tokenizer).hexdigest()
    else:
        vocabulary = sorted(tokenizer.get_vocab().items()) if tokenizer else None
    return [policy.kind, policy.max_tokens, policy.pad_to, policy.lower_case, vocabulary]


def _weights_hash(model: LeccrModel) -> str:
    """Hash of the frozen encoder; its spec is enough for one without weights."""
    digest = hashlib.sha256(canonical_json(model.config.text_encoder).encode())
    if model.description_encoder is not None:
        for name, weights in sorted(model.description_encoder.state_dict().items()):
            digest.update(name.encode())
            digest.update(weights.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()

"""Hugging Face datasets on disk: `save_to_disk` folders, parquet and Arrow files with an image column.

Read by pyarrow alone, and never the images: `datasets` would copy parquet files into its cache first.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import UsageError
from pipeline.media.images import reference
from pipeline.sources.items import Defaults, SourceItem, captions_in, distinct, plain, split_named, split_of_shard
from pipeline.sources.locations import absolute, exists, is_url, open_binary, short_name

MEDIA_COLUMNS = ("image", "img", "jpg", "jpeg", "png", "webp", "picture", "photo", "video", "mp4")
CAPTION_COLUMNS = ("captions", "caption", "sentences", "text")
ID_COLUMNS = ("id", "image_id", "item_id", "img_id", "key", "filename", "file_name")
TOLD_COLUMNS = ("split", "license", "language")
MARKERS = ("dataset_dict.json", "state.json", "dataset_info.json")
BATCH_ROWS = 1024


class DatasetSource:
    """The rows of a dataset's files, in the files' order. Memory: one batch, and at first one column of ids.

    The id is the first of ID_COLUMNS that tells all rows apart, else FILE-ROW, rows counted from 0.
    """

    kind = "dataset"

    def __init__(self, given: str, files: Sequence[tuple[str, str, str]], defaults: Defaults):
        """`files` are (absolute location, path for ids without suffix, split), at least one."""
        self.files, self.defaults = files, defaults
        self.name = short_name(given)
        first = files[0][0]
        schema = _schema(first)
        self.column = media_column(schema, first)
        usable = [name for name in schema.names if name != self.column]
        self.captions = next((name for name in CAPTION_COLUMNS if name in usable and _texts(schema.field(name))), None)
        self.told = [name for name in TOLD_COLUMNS if name in usable and _is_text(schema.field(name).type)]
        rows = 0
        for location, _, _ in files:
            other = _schema(location)
            for name in filter(None, (self.column, self.captions, *self.told)):
                if name not in other.names:
                    raise UsageError(f"--input: {location} has no column {name!r}, which {first} has: give them apart")
            rows += _count(location)
        if not rows:
            raise UsageError(f"--input: {given} holds no rows: give a dataset with an image column and rows")
        self.id_column = self._find_ids(schema, rows)
        splits = sorted({split for _, _, split in files})
        self.summary = (
            f"dataset {given}: {rows:,} rows in {len(files):,} files, split {' and '.join(splits)}, "
            f"media in column {self.column!r}, "
            f"{f'captions in {self.captions!r}' if self.captions else 'no captions'}, "
            f"ids {f'in {self.id_column!r}' if self.id_column else 'by file and row'}"
        )

    def items(self) -> Iterator[SourceItem]:
        columns = [name for name in (self.id_column, self.captions, *self.told) if name]
        for location, stem, split in self.files:
            for row, told in enumerate(_rows(location, columns)):
                language = plain(told.get("language")) or self.defaults.caption_language
                try:
                    captions = list(captions_in(told[self.captions], language)) if self.captions else []
                except ValueError as error:
                    raise UsageError(f"--input: {location} row {row}, column {self.captions!r}: {error}") from error
                yield SourceItem(
                    str(told[self.id_column]) if self.id_column else f"{stem}-{row}",
                    reference(location, column=self.column, row=row),
                    split_named(plain(told.get("split")), split),
                    self.name,
                    plain(told.get("license")) or self.defaults.license,
                    distinct(captions),
                )

    def _find_ids(self, schema: pa.Schema, rows: int) -> str | None:
        for name in ID_COLUMNS:
            if name not in schema.names or name == self.column:
                continue
            kind = schema.field(name).type
            if not (_is_text(kind) or pa.types.is_integer(kind)):
                continue
            values = [value for location, _, _ in self.files for value in _column(location, name)]
            ids = pa.chunked_array([value.cast(pa.large_string()) for value in values], pa.large_string())
            blank = pc.any(pc.equal(pc.utf8_trim_whitespace(ids), "")).as_py()
            if len(ids) == rows and not blank and pc.count_distinct(ids).as_py() == rows:
                return name
        return None


def dataset_files(given: str, default_split: str) -> list[tuple[str, str, str]]:
    """The files of a `save_to_disk` folder, as DatasetSource wants them; [] where it is no such folder."""
    root = absolute(given)
    if exists(f"{root}/dataset_dict.json"):
        splits = _json(f"{root}/dataset_dict.json").get("splits")
        if not isinstance(splits, list) or not splits:
            raise UsageError(f"--input: {root}/dataset_dict.json names no splits: save the dataset again")
        return [
            file
            for name in splits
            for file in _state_files(f"{root}/{_plain(root, name)}", f"{name}/", split_named(name, name))
        ]
    return _state_files(root, "", default_split) if exists(f"{root}/state.json") else []


def shard_files(root: str, paths: Sequence[str], default_split: str) -> list[tuple[str, str, str]]:
    """Parquet or Arrow files under a folder, as DatasetSource wants them; the split is told by their path."""
    return [(f"{root}/{path}", path.rpartition(".")[0], split_of_shard(path, default_split)) for path in paths]


def media_column(schema: pa.Schema, location: str) -> str:
    """The column of images or videos: by Hugging Face features, else a struct of bytes and path, else by name."""
    told = json.loads((schema.metadata or {}).get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    featured = [name for name in schema.names if isinstance(told.get(name), dict) and _is_media(told[name])]
    structs = [field.name for field in schema if pa.types.is_struct(field.type) and _has_bytes(field.type)]
    binary = [field.name for field in schema if field.name in MEDIA_COLUMNS and _is_binary(field.type)]
    for found in (featured, structs, binary):
        if found:
            return min(
                found, key=lambda name: MEDIA_COLUMNS.index(name) if name in MEDIA_COLUMNS else len(MEDIA_COLUMNS)
            )
    columns = ", ".join(f"{field.name}: {field.type}" for field in schema)
    raise UsageError(
        f"--input: {location} has no column of images (got {columns}): wanted an Image feature, a struct of bytes and "
        f"path, or a binary column named one of {', '.join(MEDIA_COLUMNS)}"
    )


def _state_files(folder: str, prefix: str, split: str) -> list[tuple[str, str, str]]:
    state = _json(f"{folder}/state.json")
    if state.get("_indices_data_files"):
        raise UsageError(f"--input: {folder} keeps a selection beside its rows: flatten_indices() and save it again")
    names = [_plain(folder, file.get("filename")) for file in state.get("_data_files", [])]
    return [(f"{folder}/{name}", prefix + name.rpartition(".")[0], split) for name in names]


def _plain(folder: str, name: Any) -> str:
    """A name from a manifest, if it is one of this folder."""
    if not isinstance(name, str) or not name or "/" in name or "\\" in name or name in (".", ".."):
        raise UsageError(f"--input: the dataset in {folder} names {name!r}, wanted a file or folder in it")
    return name


def _json(location: str) -> dict[str, Any]:
    with open_binary(location) as stream:
        try:
            value = json.load(stream)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"--input: {location} is not JSON: {error}: save the dataset again") from error
    return value if isinstance(value, dict) else {}


def _is_media(feature: dict[str, Any]) -> bool:
    return feature.get("_type") in ("Image", "Video")


def _has_bytes(kind: pa.StructType) -> bool:
    names = {kind.field(at).name for at in range(kind.num_fields)}
    return {"bytes", "path"} <= names and _is_binary(kind.field("bytes").type)


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _texts(field: pa.Field) -> bool:
    """Whether a column is text, a struct with text, or a list of these."""
    kind = field.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        kind = kind.value_type
    return _is_text(kind) or bool(
        pa.types.is_struct(kind) and {"raw", "text", "caption"} & {part.name for part in kind}
    )


@contextmanager
def _reading(location: str) -> Iterator[Any]:
    """A file for pyarrow, memory-mapped if local. What pyarrow cannot read becomes a UsageError."""
    try:
        with open_binary(location) if is_url(location) else pa.memory_map(location) as source:
            yield source
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        raise UsageError(f"--input: {location} cannot be read: {error}: fetch it again or leave it out") from error


def _open_arrow(source: Any, columns: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
    """The batches of an Arrow file in the stream or the file format; the columns left out are not decompressed."""
    is_file = source.read(6) == b"ARROW1"
    source.seek(0)
    opener = pa.ipc.open_file if is_file else pa.ipc.open_stream
    if columns is not None:
        with opener(source) as opened:
            names = opened.schema.names
        source.seek(0)
        options = pa.ipc.IpcReadOptions(included_fields=[names.index(name) for name in columns])
        opened = opener(source, options=options)
    else:
        opened = opener(source)
    if is_file:
        yield from (opened.get_batch(at) for at in range(opened.num_record_batches))
    else:
        yield from opened


def _schema(location: str) -> pa.Schema:
    with _reading(location) as source:
        if location.endswith(".parquet"):
            return pq.read_schema(source)
        is_file = source.read(6) == b"ARROW1"
        source.seek(0)
        return (pa.ipc.open_file if is_file else pa.ipc.open_stream)(source).schema


def _batches(location: str, columns: list[str]) -> Iterator[pa.RecordBatch]:
    with _reading(location) as source:
        if location.endswith(".parquet"):
            yield from pq.ParquetFile(source).iter_batches(BATCH_ROWS, columns=columns)
        else:
            yield from _open_arrow(source, columns)


def _count(location: str) -> int:
    if location.endswith(".parquet"):
        with _reading(location) as source:
            return int(pq.ParquetFile(source).metadata.num_rows)
    with _reading(location) as source:
        return sum(batch.num_rows for batch in _open_arrow(source, None))


def _column(location: str, name: str) -> Iterator[pa.Array]:
    for batch in _batches(location, [name]):
        yield batch.column(batch.schema.names.index(name))


def _rows(location: str, columns: list[str]) -> Iterator[dict[str, Any]]:
    if not columns:
        yield from ({} for _ in range(_count(location)))
        return
    for batch in _batches(location, columns):
        yield from batch.to_pylist()

"""Hugging Face datasets on disk: `save_to_disk` folders, parquet and Arrow files with an image column.

Read with pyarrow only, and never the images: `datasets` would first copy parquet files into its cache.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import UsageError
from pipeline.media.uri import reference
from pipeline.sources.items import Defaults, SourceItem, split_named, split_of_shard
from pipeline.sources.locations import exists, is_url, open_binary, short_name
from pipeline.sources.rows import read_fields

MEDIA_COLUMNS = ("image", "img", "jpg", "jpeg", "png", "webp", "picture", "photo", "video", "mp4")
CAPTION_COLUMNS = ("captions", "caption", "sentences", "text")
ID_COLUMNS = ("id", "image_id", "item_id", "img_id", "key", "filename", "file_name")
FIELD_COLUMNS = ("split", "license", "language")
MARKERS = ("dataset_dict.json", "state.json")  # one of them is in a `save_to_disk` folder
BATCH_ROWS = 1024


class DatasetFile(NamedTuple):
    """A file of a dataset.

    Attributes:
        location: Absolute path or URL.
        stem: Its path without suffix, for ids.
        split: The split of its rows.
    """

    location: str
    stem: str
    split: str


class DatasetSource:
    """The rows of a dataset's files, in the files' order.

    The id is the first of ID_COLUMNS that is different in all rows, else FILE-ROW, with rows counted from 0.

    Memory: one batch, and at first one column of ids.
    """

    kind = "dataset"

    def __init__(self, given: str, files: Sequence[DatasetFile], defaults: Defaults):
        """Find the columns; `given` is the input on the command line, `files` at least one."""
        self._files, self._defaults = files, defaults
        self.name = short_name(given)
        first = files[0].location
        schema = _read_schema(first)
        self._media = media_column(schema, first)
        usable = [name for name in schema.names if name != self._media]
        self._captions = next((name for name in CAPTION_COLUMNS if name in usable and _has_text(schema, name)), None)
        fields = [name for name in FIELD_COLUMNS if name in usable and _is_text(schema.field(name).type)]
        self._columns = [*([self._captions] if self._captions else []), *fields]
        for file in files:
            if missing := {self._media, *self._columns}.difference(_read_schema(file.location).names):
                columns = " and ".join(map(repr, sorted(missing)))
                raise UsageError(
                    f"--input: {file.location} has no column {columns}, unlike {first}: give them as two inputs"
                )
        num_rows = sum(_count_rows(file.location) for file in files)
        if not num_rows:
            raise UsageError(f"--input: {given} holds no rows: give a dataset with an image column and rows")
        self._id_column = self._find_id_column(schema, num_rows)
        splits = sorted({file.split for file in files})
        self.summary = (
            f"dataset {given}: {num_rows:,} rows in {len(files):,} files, split {' and '.join(splits)}, "
            f"media in column {self._media!r}, "
            f"{f'captions in {self._captions!r}' if self._captions else 'no captions'}, "
            f"ids {f'in {self._id_column!r}' if self._id_column else 'by file and row'}"
        )

    def items(self) -> Iterator[SourceItem]:
        """The rows; see Source."""
        columns = [*([self._id_column] if self._id_column else []), *self._columns]
        for location, stem, split in self._files:
            for number, row in enumerate(_read_rows(location, columns)):
                try:
                    fields = read_fields({name: row[name] for name in self._columns}, self._defaults.caption_language)
                except ValueError as error:
                    raise UsageError(f"--input: {location} row {number}, column {self._captions!r}: {error}") from error
                yield SourceItem(
                    str(row[self._id_column]) if self._id_column else f"{stem}-{number}",
                    reference(location, column=self._media, row=number),
                    split_named(fields.split, split),
                    self.name,
                    fields.license or self._defaults.license,
                    fields.captions,
                )

    def _find_id_column(self, schema: pa.Schema, num_rows: int) -> str | None:
        for name in ID_COLUMNS:
            kind = schema.field(name).type if name in schema.names else None
            if kind is None or not (_is_text(kind) or pa.types.is_integer(kind)):
                continue
            chunks = [
                batch.column(name).cast(pa.large_string())
                for file in self._files
                for batch in _read_batches(file.location, [name])
            ]
            ids = pa.chunked_array(chunks, pa.large_string())
            blank = pc.any(pc.equal(pc.utf8_trim_whitespace(ids), "")).as_py()
            if len(ids) == num_rows and not blank and pc.count_distinct(ids).as_py() == num_rows:
                return name
        return None


def dataset_files(root: str, default_split: str) -> list[DatasetFile]:
    """The files that a `save_to_disk` folder, which holds one of MARKERS, names; [] for none."""
    if not exists(f"{root}/dataset_dict.json"):
        return _state_files(root, "", default_split)
    splits = _read_json(f"{root}/dataset_dict.json").get("splits")
    if not isinstance(splits, list) or not splits:
        raise UsageError(f"--input: {root}/dataset_dict.json names no splits: save the dataset again")
    return [
        file
        for name in splits
        for file in _state_files(f"{root}/{_check_name(root, name)}", f"{name}/", split_named(name, name))
    ]


def shard_files(root: str, paths: Sequence[str], default_split: str) -> list[DatasetFile]:
    """Parquet or Arrow files under a folder; their paths name the split."""
    return [
        DatasetFile(f"{root}/{path}", path.rpartition(".")[0], split_of_shard(path, default_split)) for path in paths
    ]


def media_column(schema: pa.Schema, location: str) -> str:
    """The column of images or videos: by Hugging Face features, else a struct of bytes and path, else by name."""
    metadata = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    features = metadata.get("info", {}).get("features", {})
    types = {name: feature.get("_type") for name, feature in features.items() if isinstance(feature, dict)}
    by_feature: list[str] = [name for name in schema.names if types.get(name) in ("Image", "Video")]
    by_struct: list[str] = [field.name for field in schema if _is_encoded(field.type)]
    by_name: list[str] = [field.name for field in schema if field.name in MEDIA_COLUMNS and _is_binary(field.type)]
    for names in (by_feature, by_struct, by_name):
        for name in (*MEDIA_COLUMNS, *names):  # well-known names first
            if name in names:
                return name
    columns = ", ".join(f"{field.name}: {field.type}" for field in schema)
    raise UsageError(
        f"--input: {location} has no column of images (it has {columns}): there must be an Image feature, a struct of "
        f"bytes and path, or a binary column named one of {', '.join(MEDIA_COLUMNS)}"
    )


def _state_files(folder: str, prefix: str, split: str) -> list[DatasetFile]:
    state = _read_json(f"{folder}/state.json")
    if state.get("_indices_data_files"):
        raise UsageError(f"--input: {folder} is a selection of rows: flatten_indices() and save it again")
    names = [_check_name(folder, file.get("filename")) for file in state.get("_data_files", [])]
    return [DatasetFile(f"{folder}/{name}", prefix + name.rpartition(".")[0], split) for name in names]


def _check_name(folder: str, name: Any) -> str:
    """A name from a manifest, refused if it leads out of its folder."""
    if not isinstance(name, str) or not name or "/" in name or "\\" in name or name in (".", ".."):
        raise UsageError(f"--input: the dataset in {folder} names {name!r}, which is not a file or folder in it")
    return name


def _read_json(location: str) -> dict[str, Any]:
    with open_binary(location) as stream:
        try:
            value = json.load(stream)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"--input: {location} is not valid JSON: {error}: save the dataset again") from error
    return value if isinstance(value, dict) else {}


def _is_encoded(kind: pa.DataType) -> bool:
    """Whether values are structs of bytes and path, as `datasets` encodes images."""
    types = {part.name: part.type for part in kind} if pa.types.is_struct(kind) else {}
    return "path" in types and "bytes" in types and _is_binary(types["bytes"])


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _has_text(schema: pa.Schema, name: str) -> bool:
    """Whether a column is text, a struct with text, or a list of these."""
    kind = schema.field(name).type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        kind = kind.value_type
    if pa.types.is_struct(kind):
        return not {"raw", "text", "caption"}.isdisjoint(part.name for part in kind)
    return _is_text(kind)


@contextmanager
def _open(location: str) -> Iterator[Any]:
    """A file for pyarrow, memory-mapped if local. Raises UsageError for what pyarrow cannot read."""
    try:
        with open_binary(location) if is_url(location) else pa.memory_map(location) as source:
            yield source
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        raise UsageError(f"--input: {location} cannot be read: {error}: fetch it again or leave it out") from error


def _open_arrow(source: Any) -> Any:
    """A reader of an Arrow file in the stream or the file format."""
    is_file = source.read(6) == b"ARROW1"
    source.seek(0)
    return pa.ipc.open_file(source) if is_file else pa.ipc.open_stream(source)


def _read_schema(location: str) -> pa.Schema:
    with _open(location) as source:
        return pq.read_schema(source) if location.endswith(".parquet") else _open_arrow(source).schema


def _read_batches(location: str, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """Batches of some columns. The images of an Arrow file that is not compressed stay on disk."""
    with _open(location) as source:
        if location.endswith(".parquet"):
            yield from pq.ParquetFile(source).iter_batches(BATCH_ROWS, columns=columns)
            return
        reader = _open_arrow(source)
        if isinstance(reader, pa.RecordBatchFileReader):
            yield from (reader.get_batch(at).select(columns) for at in range(reader.num_record_batches))
        else:
            yield from (batch.select(columns) for batch in reader)


def _count_rows(location: str) -> int:
    if location.endswith(".parquet"):
        with _open(location) as source:
            return int(pq.ParquetFile(source).metadata.num_rows)
    return sum(batch.num_rows for batch in _read_batches(location, []))


def _read_rows(location: str, columns: list[str]) -> Iterator[dict[str, Any]]:
    if not columns:
        yield from ({} for _ in range(_count_rows(location)))
        return
    for batch in _read_batches(location, columns):
        yield from batch.to_pylist()

"""Hugging Face datasets on disk: `save_to_disk` folders, parquet and Arrow files with an image column.

Read with pyarrow only, and never the images: `datasets` would first copy parquet files into its cache.
"""

import json
import posixpath
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import UsageError
from pipeline.media.uri import TableFile, reference, stays_inside
from pipeline.sources.account import Account
from pipeline.sources.items import Defaults, SourceItem, split_named, split_of_shard
from pipeline.sources.locations import open_binary, short_name
from pipeline.sources.rows import read_fields

MEDIA_COLUMNS = ("image", "img", "jpg", "jpeg", "png", "webp", "picture", "photo", "video", "mp4")
CAPTION_COLUMNS = ("captions", "caption", "sentences", "text")
ID_COLUMNS = ("id", "image_id", "item_id", "img_id", "key", "filename", "file_name")
FIELD_COLUMNS = ("split", "license", "language")


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

    def __init__(self, given: str, files: Sequence[DatasetFile], defaults: Defaults, account: Account | None = None):
        """Find the columns; `given` is the input, `files` at least one, `account` that of their folder."""
        self._files, self._defaults = files, defaults
        self.name, self.account = short_name(given), account or Account()
        first = files[0].location
        with _open(first) as table:
            schema = table.schema
        self._media = media_column(schema, first)
        types = {field.name: field.type for field in schema if field.name != self._media}
        captions = next((name for name in CAPTION_COLUMNS if name in types and _has_text(types[name])), None)
        fields = [name for name in FIELD_COLUMNS if name in types and _is_text(types[name])]
        self._columns = [*([captions] if captions else []), *fields]
        num_rows = 0
        for file in files:
            with _open(file.location) as table:
                num_rows += table.num_rows
                missing = {self._media, *self._columns}.difference(table.schema.names)
            if missing:
                columns = " and ".join(map(repr, sorted(missing)))
                raise UsageError(f"--input: {file.location} lacks {columns}, unlike {first}: give them as two inputs")
        if not num_rows:
            raise UsageError(f"--input: {given} holds no rows: give a dataset with an image column and rows")
        self._id_column = next(filter(self._is_unique, ID_COLUMNS), None)
        splits = sorted({file.split for file in files})
        self.summary = (
            f"dataset {given}: {num_rows:,} rows in {len(files):,} files, split {' and '.join(splits)}, "
            f"media in column {self._media!r}, {f'captions in {captions!r}' if captions else 'no captions'}, "
            f"ids {f'in {self._id_column!r}' if self._id_column else 'by file and row'}"
        )

    def items(self) -> Iterator[SourceItem]:
        """The rows; see Source."""
        for location, stem, split in self._files:
            for number, row in enumerate(self._rows(location)):
                item_id = str(row.pop(self._id_column)) if self._id_column else f"{stem}-{number}"
                try:
                    fields = read_fields(row, self._defaults.caption_language)
                except ValueError as error:
                    raise UsageError(f"--input: {location} row {number}: {error}") from error
                yield SourceItem(
                    item_id,
                    reference(location, column=self._media, row=number),
                    split_named(fields.split, split),
                    self.name,
                    fields.license or self._defaults.license,
                    fields.captions,
                )

    def _rows(self, location: str) -> Iterator[dict[str, Any]]:
        columns = [*([self._id_column] if self._id_column else []), *self._columns]
        with _open(location) as table:
            for batch in table.batches(columns):
                yield from batch.to_pylist()

    def _is_unique(self, name: str) -> bool:
        """Whether a column of texts or whole numbers has a different value in every row."""
        chunks = []
        for file in self._files:
            with _open(file.location) as table:
                kind = table.schema.field(name).type if name in table.schema.names else None
                if kind is None or not (_is_text(kind) or pa.types.is_integer(kind)):
                    return False
                chunks += [batch.column(name).cast(pa.large_string()) for batch in table.batches([name])]
        ids = pa.chunked_array(chunks, pa.large_string())
        blank = pc.any(pc.equal(pc.utf8_trim_whitespace(ids), "")).as_py()
        return not blank and pc.count_distinct(ids).as_py() == len(ids)


def saved_files(root: str, paths: Sequence[str], default_split: str) -> list[DatasetFile]:
    """The files that the `state.json` files of a `save_to_disk` folder name. Each subfolder is a split."""
    files = []
    for path in paths:
        folder = path.rpartition("/")[0]
        state = _read_json(f"{root}/{path}")
        if state.get("_indices_data_files"):
            raise UsageError(f"--input: {root}/{folder} is a selection of rows: flatten_indices() and save it again")
        for file in state.get("_data_files", []):
            if not stays_inside(str(file.get("filename"))):
                raise UsageError(f"--input: {root}/{path} names {file['filename']!r}, which is not in its folder")
            name = f"{folder}/{file['filename']}".lstrip("/")
            split = split_named(posixpath.basename(folder), default_split)
            files.append(DatasetFile(f"{root}/{name}", name.rpartition(".")[0], split))
    return files


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
    candidates: tuple[list[str], ...] = (
        [name for name in schema.names if types.get(name) in ("Image", "Video")],
        [field.name for field in schema if _is_encoded(field.type)],
        [field.name for field in schema if field.name in MEDIA_COLUMNS and _is_binary(field.type)],
    )
    if names := next(filter(None, candidates), None):
        return next((name for name in MEDIA_COLUMNS if name in names), names[0])
    columns = ", ".join(f"{field.name}: {field.type}" for field in schema)
    raise UsageError(
        f"--input: {location} has no column of images (it has {columns}): there must be an Image feature, a struct of "
        f"bytes and path, or a binary column named one of {', '.join(MEDIA_COLUMNS)}"
    )


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


def _has_text(kind: pa.DataType) -> bool:
    """Whether values are texts, structs with a text, or lists of these."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        kind = kind.value_type
    if pa.types.is_struct(kind):
        return not {"raw", "text", "caption"}.isdisjoint(part.name for part in kind)
    return _is_text(kind) or bool(pa.types.is_null(kind))  # the type of lists that are all empty


@contextmanager
def _open(location: str) -> Iterator[TableFile]:
    """Open a file. Raises UsageError for what pyarrow cannot read, now or while the file is open."""
    try:
        yield TableFile(location)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        raise UsageError(f"--input: {location} cannot be read: {error}: fetch it again or leave it out") from error

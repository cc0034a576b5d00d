"""Hugging Face datasets on disk: `save_to_disk` folders, parquet and Arrow files with an image column.

Read with pyarrow only, and never the images: `datasets` would first copy parquet files into its cache.
"""

import json
import posixpath
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import MediaError, UsageError
from pipeline.media.uri import TableFile, reference, stays_inside
from pipeline.sources.account import Account
from pipeline.sources.items import Defaults, Hashes, SourceItem, clean_text, split_named, split_of_shard
from pipeline.sources.locations import open_binary, short_name
from pipeline.sources.rows import FIELDS, read_column, read_fields, row_of
from pipeline.sources.sidecars import add_fields

MEDIA_COLUMNS = (
    *("image", "img", "jpg", "jpeg", "png", "webp", "picture", "photo", "video", "mp4"),
    *("images", "pictures", "photos", "videos"),
)
ID_COLUMNS = ("id", "image_id", "item_id", "img_id", "key", "filename", "file_name")
IGNORED = ("other", "ids", "key", "file")


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

    Memory: one batch.
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
        self._is_list = _list_value(_storage(schema.field(self._media).type)) is not None
        types = {field.name: field.type for field in schema if field.name not in (self._media, *ID_COLUMNS)}
        roles = {name: read_column(name).role for name in types}
        captions = [name for name, kind in types.items() if roles[name] in ("captions", "texts") and _has_text(kind)]
        fields = [name for name, kind in types.items() if roles[name] in FIELDS and _is_text(kind)]
        self._columns = [*captions, *fields]
        self._unread = [name for name in types if name not in self._columns and roles[name] not in IGNORED]
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
        splits, names = sorted({file.split for file in files}), " and ".join(map(repr, captions))
        self.summary = (
            f"dataset {given}: {num_rows:,} rows in {len(files):,} files, split {' and '.join(splits)}, "
            f"media in column {self._media!r}, {f'captions in {names}' if captions else 'no captions'}, "
            f"ids {f'in {self._id_column!r}' if self._id_column else 'by file and row'}"
        )

    def items(self) -> Iterator[SourceItem]:
        """The rows; see Source."""
        unread = dict.fromkeys(self._unread)
        for location, stem, split in self._files:
            for number, (row, num_media) in enumerate(self._rows(location)):
                item_id = str(row.pop(self._id_column)) if self._id_column else f"{stem}-{number}"
                try:
                    fields = read_fields(row, self._defaults.caption_language)
                except ValueError as error:
                    raise UsageError(f"--input: {location} row {number}: {error}") from error
                unread.update(dict.fromkeys(fields.unread))
                if not num_media:
                    self.account.add("no_media", f"rows of {self.name} have no picture", item_id)
                if num_media > 1 and fields.captions:
                    text = f"rows of {self.name} have several pictures, and captions that may be of any of them"
                    self.account.add("unassigned_captions", text, item_id)
                if num_media != 1:
                    fields = replace(fields, captions=())
                for index in range(num_media):
                    part = {"index": index} if self._is_list else {}
                    item = SourceItem(
                        item_id if num_media == 1 else f"{item_id}-{index}",
                        reference(location, column=self._media, row=number, **part),
                        split,
                        self.name,
                        self._defaults.license,
                    )
                    yield add_fields(item, [fields])
        for name in unread:
            self.account.add("unknown_column", f"columns of {self.name} were not understood", name)

    def _rows(self, location: str) -> Iterator[tuple[dict[str, Any], int]]:
        """The rows of a file without their media, each with the number of these."""
        columns = [*([self._id_column] if self._id_column else []), *self._columns]
        with _open(location) as table:
            # Of lists of pictures only the paths are read, which are as many.
            for batch in table.batches([*columns, *(table.path_leaves(self._media) if self._is_list else ())]):
                names = [name for name in batch.schema.names if name in columns]
                cells = [batch.column(at) for at, name in enumerate(batch.schema.names) if name in columns]
                values = zip(*(column.to_pylist(maps_as_pydicts="strict") for column in cells), strict=True)
                counts = [1] * batch.num_rows
                if self._is_list:
                    lengths = pc.list_value_length(batch.column(batch.schema.names.index(self._media)))
                    counts = pc.fill_null(lengths, 0).to_pylist()
                for row, count in zip(values if cells else [()] * batch.num_rows, counts, strict=True):
                    yield row_of(zip(names, row, strict=True)), count

    def _is_unique(self, name: str) -> bool:
        """Whether a column of texts or whole numbers has a different value in every row."""
        hashes = Hashes()
        for file in self._files:
            with _open(file.location) as table:
                kind = table.schema.field(name).type if name in table.schema.names else None
                if kind is None or not (_is_text(kind) or pa.types.is_integer(kind)):
                    return False
                for batch in table.batches([name]):
                    for item_id in map(clean_text, batch.column(name).to_pylist()):
                        if not item_id:
                            return False
                        hashes.add(item_id)
        return not hashes.repeated()


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


def _storage(kind: pa.DataType) -> pa.DataType:
    """A type without what says how it is stored: dictionaries and extensions."""
    while isinstance(kind, pa.DictionaryType | pa.BaseExtensionType):
        kind = kind.value_type if isinstance(kind, pa.DictionaryType) else kind.storage_type
    return kind


def _list_value(kind: pa.DataType) -> pa.DataType | None:
    """The type of a list's values, None for other types."""
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    is_view = pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind)
    return _storage(kind.value_type) if is_list or is_view else None


def _is_encoded(kind: pa.DataType) -> bool:
    """Whether values are structs of bytes and path, as `datasets` encodes images, or lists of these."""
    kind = _list_value(_storage(kind)) or _storage(kind)
    types = {part.name: part.type for part in kind} if pa.types.is_struct(kind) else {}
    return "path" in types and "bytes" in types and _is_binary(types["bytes"])


def _is_binary(kind: pa.DataType) -> bool:
    return str(_list_value(_storage(kind)) or _storage(kind)) in ("binary", "large_binary", "binary_view")


def _is_text(kind: pa.DataType) -> bool:
    return str(_storage(kind)) in ("string", "large_string", "string_view")


def _has_text(kind: pa.DataType) -> bool:
    """Whether values are texts, structs, or lists of these."""
    kind = _list_value(_storage(kind)) or _storage(kind)
    is_nested = pa.types.is_struct(kind) or pa.types.is_map(kind)
    return _is_text(kind) or bool(is_nested or pa.types.is_null(kind))  # null: of lists that are all empty


@contextmanager
def _open(location: str) -> Iterator[TableFile]:
    """Open a file. Raises UsageError for what pyarrow cannot read, now or while the file is open."""
    try:
        yield TableFile(location)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError, MediaError) as error:
        raise UsageError(f"--input: {location} cannot be read: {error}: fetch it again or leave it out") from error

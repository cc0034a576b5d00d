"""What files of a folder say about its media: tables of captions, metadata and attribution, and texts of their own.

This is the one place where rows are matched to the media that they are about.
"""

import contextlib
import dataclasses
import json
import posixpath
import re
import sqlite3
import unicodedata
import urllib.parse
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

from pipeline.errors import UsageError
from pipeline.sources import locations
from pipeline.sources.account import Account
from pipeline.sources.items import SPLIT_FILLERS, SPLIT_NAMES, SourceCaption, SourceItem, split_named
from pipeline.sources.listing import Listing
from pipeline.sources.rows import (
    FIELDS,
    RowFields,
    distinct,
    read_captions,
    read_column,
    read_fields,
    read_file,
    read_json,
    without_address,
    words_of,
)
from pipeline.sources.tables import read_table, row_error

OWN_NAMES = ("captions.jsonl", "captions.csv", "metadata.jsonl", "metadata.csv", "attribution.csv")  # must be right
ABOVE_NAMES = (*OWN_NAMES, "captions.txt", "captions.tsv", "captions.json", "metadata.json", "results.csv")
TABLE_SUFFIXES = (".csv", ".tsv", ".txt", ".json", ".jsonl", ".ndjson")
TABLE_STEMS = (
    *("metadata", "attribution", "annotations", "results", "dataset"),
    *("dataset_flickr_k", "dataset_coco", "flickr_k_token"),
)
LIST_FILLERS = SPLIT_FILLERS | {"file", "files", "list", "flickr", "k"}  # train.txt, Flickr_8k.testImages.txt
TEXT_SUFFIXES = (".txt", ".caption", ".captions", ".json")
OTHER_STEMS = ("readme", "license", "licence", "copying", "notice", "changelog", "requirements")
# Google Takeout has a text 1.jpg.supplemental-meta(2).json, its name cut anywhere, about 1(2).jpg.
_SUFFIX = "|".join(map(re.escape, sorted(locations.MEDIA_SUFFIXES)))
TAKEOUT = re.compile(rf"(?<=.)({_SUFFIX})(?:\.su(?:p[a-z-]*)?)?(\(\d+\))?$", re.IGNORECASE)
MAX_TEXT = 1 << 20  # bytes of a text that is about one medium


class SideRows:
    """Rows about media, by medium, in a temporary file, so that those of a large collection do not fill the memory.

    A row belongs to the medium at its path, relative to the media's folder or to the side file's own. Any other row
    belongs to the medium whose path, or else whose name, is the same but for case, Unicode form, percent-encoding or
    folders, where that is certain: there is one such medium, no row with its path, and one such path among the rows.

    Attributes:
        rows: How many rows there are.
        matched: Rows that belong to a medium.
        unread: Columns that were not understood.
    """

    def __init__(self, media: Collection[str], language: str):
        """Prepare; `media` are paths, `language` is that of captions whose row names none."""
        self._media, self._language = media, language
        self.rows = self.matched = 0
        self.unread: dict[str, None] = {}
        self._table = sqlite3.connect("", check_same_thread=False)
        weakref.finalize(self, self._table.close)
        self._table.execute("CREATE TABLE rows (medium, path, given, fields)")
        self._table.execute("CREATE INDEX by_medium ON rows (medium)")
        self._table.execute("CREATE INDEX by_path ON rows (path)")

    def fields(self, medium: str) -> Iterator[RowFields]:
        """The rows about the medium at a path, in their order."""
        rows = self._table.execute("SELECT fields FROM rows WHERE medium = ? ORDER BY rowid", (medium,))
        for (stored,) in rows:
            captions, *texts = json.loads(stored)
            yield RowFields(tuple(SourceCaption(*caption) for caption in captions), *texts)

    def unmatched(self) -> Iterator[str]:
        """What the rows that belong to no medium name, in their order."""
        for (given,) in self._table.execute("SELECT given FROM rows WHERE medium IS NULL ORDER BY rowid"):
            yield given

    def _insert(self, medium: str | None, path: str, given: str, fields: RowFields) -> None:
        self.matched += medium is not None
        self.unread.update(dict.fromkeys(fields.unread))
        # Not with `dataclasses.astuple`, which copies deeply and takes longer than the rest.
        captions = [[each.text, each.language, each.origin, each.number] for each in fields.captions]
        stored = json.dumps([captions, *(getattr(fields, name) for name in FIELDS)])
        self._table.execute("INSERT INTO rows VALUES (?, ?, ?, ?)", (medium, path, given, stored))

    def _match(self, row_key: Callable[[str], str], medium_key: Callable[[str], str], are_shared: bool = False) -> None:
        """Match rows to media with the same key, where one path among the rows and one medium without rows have it.

        Args:
            row_key: From the path in a row to its key, "" for none.
            medium_key: The same for a medium.
            are_shared: Whether several media with the key share the rows.
        """
        paths: dict[str, str | None] = {}  # key → path in the rows; None if several have the key
        for (path,) in self._table.execute("SELECT DISTINCT path FROM rows WHERE medium IS NULL"):
            if key := row_key(path):
                paths[key] = None if key in paths else path
        media: dict[str, list[str]] = {}
        for medium in self._media if paths else ():
            if paths.get(key := medium_key(medium)):
                media.setdefault(key, []).append(medium)
        for key, (first, *others) in media.items():
            if (others and not are_shared) or any(self.fields(first)):
                continue
            update = "UPDATE rows SET medium = ? WHERE path = ? AND medium IS NULL"
            self.matched += self._table.execute(update, (first, paths[key])).rowcount
            for other in others:
                copy = "INSERT INTO rows SELECT ?, path, given, fields FROM rows WHERE path = ? AND medium = ?"
                self._table.execute(copy, (other, paths[key], first))


class SideFile(SideRows):
    """The rows of a table in a side file.

    Attributes:
        label: Its path relative to the media's folder.
        is_above: Whether it is in the folder above the media's.
    """

    def __init__(
        self, location: str, label: str, media: Collection[str], language: str, root: str = "", split: str = ""
    ):
        """Prepare to read.

        Args:
            location: Path or URL of the file.
            label: Its path relative to the media's folder.
            media: Paths of the media, relative to their folder.
            language: BCP 47 tag of captions whose row names no language.
            root: `../NAME/` of the media's folder.
            split: Split of media whose row names none.
        """
        super().__init__(media, language)
        self._location, self.label, self._root, self._split = location, label, root, split
        self._folder = label[: label.rfind("/") + 1]
        self.is_above = label.startswith("../")

    def read(self) -> None:
        """Read the file, check its rows and match them.

        Raises:
            UsageError: A row is wrong, or none is about a medium.
        """
        for line, row in read_table(self._location):
            self.rows += 1
            file = read_file(row)
            if file is None:
                raise row_error(self._location, line, f"no column names a file, such as `file`, among {', '.join(row)}")
            try:
                fields = read_fields(row, self._language)
            except ValueError as error:
                raise row_error(self._location, line, str(error)) from error
            self._add(file or f"line {line}", dataclasses.replace(fields, split=fields.split or self._split))
        folder, root = _fold(self._folder), _fold(self._root)
        self._match(lambda path: (folder + _fold(path)).removeprefix(root), _fold)
        self._match(_fold, _fold)
        self._match(lambda path: _tail(path, self._media), str)
        self._match(posixpath.basename, posixpath.basename)
        self._match(_fold_name, _fold_name)
        self._match(_fold_suffixless, lambda medium: _fold_name(_stem(medium)))
        if not self.matched:
            raise UsageError(
                f"--input: {self.label} has {self.rows:,} rows, none of which is about a file here: its paths must be "
                "relative to the folder, or names that are unique in it"
            )

    def __str__(self) -> str:
        unused = self.rows - self.matched
        return f"{self.label} with {self.rows:,} rows{f' ({unused:,} not used)' if unused else ''}"

    def _add(self, given: str, fields: RowFields) -> None:
        path = _compose(posixpath.normpath(without_address(given).replace("\\", "/")))
        places = [(self._folder + file).removeprefix(self._root) for file in (posixpath.normpath(given), path)]
        medium = next((place for place in (*places, posixpath.normpath(given), path) if place in self._media), None)
        in_neighbour = "/" in path and not _fold(self._folder + path).startswith(_fold(self._root))
        if medium is not None or not (self.is_above and in_neighbour):
            self._insert(medium, path, given, fields)


class SideTexts(SideRows):
    """Texts named after media: `NAME.txt` with one caption per line, `NAME.jpg.txt`, `NAME.de.txt`, `NAME.json`."""

    def read(self, root: str, paths: Iterable[str], account: Account) -> None:
        """Read the files at some paths below a folder, match them, and note those that are not taken."""
        for path in paths:
            stem, language = TAKEOUT.sub(r"\2\1", _stem(path)), self._language
            name, _, tag = stem.rpartition(".")
            if name and (named := read_column(f"caption_{tag}").language):
                stem, language = name, named
            try:
                fields = _read_text(f"{root}/{path}", language)
            except UnicodeDecodeError:
                account.add("not_taken", "files look like captions and are not UTF-8", path)
            except (ValueError, RecursionError) as error:
                account.add("not_taken", f"files look like captions and cannot be read ({error})", path)
            else:
                if fields == RowFields(unread=fields.unread):
                    account.add("not_taken", "files look like captions and hold none", path)
                else:
                    self.rows += 1
                    self._insert(stem if stem in self._media else None, stem, path, fields)
        if not self.rows:
            return
        self._match(str, _stem, are_shared=True)
        self._match(_fold, lambda medium: _fold(_stem(medium)), are_shared=True)
        self._match(_fold, _fold)
        folders = set(map(posixpath.dirname, self._media))
        self._match(  # in folders of their own
            lambda path: "" if posixpath.dirname(path) in folders else _fold_name(path),
            lambda medium: _fold_name(_stem(medium)),
        )
        for path in self.unmatched():
            account.add("not_taken", "files look like captions and are not named after a file here", path)

    def __str__(self) -> str:
        return f"{self.matched:,} texts named after them"


def open_sides(listing: Listing, language: str) -> tuple[list[SideRows], list[str]]:
    """Read what is said about the media in their folder and in files next to it, and account for the rest.

    Args:
        listing: The folder.
        language: BCP 47 tag of captions whose file names no language.

    Returns:
        The rows, and notes about files next to the folder that are not used.

    Raises:
        UsageError: One of the tables is wrong.
    """
    root, account = listing.root.rstrip("/"), listing.account
    tables = []
    for path in listing.with_suffixes(locations.CAPTION_SUFFIXES):
        if (table_language := _table_language(path, root)) is not None:
            tables.append((f"{root}/{path}", path, table_language or language))
        elif _is_other(path):
            account.add("", "other files", path)
        elif locations.suffix_of(path) not in TEXT_SUFFIXES:
            account.add("not_taken", "files look like captions, but only captions.csv and the like are read", path)
    above, _, name = root.rpartition("/")
    if locations.is_url(above) or not locations.is_url(root):
        places = [(f"{above}/{side_name}", f"../{side_name}") for side_name in ABOVE_NAMES]
        tables += [(location, label, language) for location, label in places if locations.exists(location)]
    sides: list[SideRows] = []
    notes = []
    splits = {label: _split_of_table(label) for _, label, _ in tables}
    for location, label, table_language in tables:
        split = splits[label]
        if split == "test" and not {"train", "val"}.intersection(splits.values()):
            split = ""  # a table `test.csv` may be a trial
        side = SideFile(location, label, listing.media, table_language, f"../{name}/", split)
        try:
            side.read()
        except UsageError as error:
            if side.is_above and not side.matched:
                notes.append(f"{label} not used ({error})")  # it may belong to something else
            elif posixpath.basename(label) in OWN_NAMES:
                raise
            else:
                account.add("not_taken", f"tables were not taken ({error})", label)
            continue
        sides.append(side)
        for file in side.unmatched():
            account.add("unmatched_row", f"rows of {label} name no file here", file, side.rows)
        for column in side.unread:
            account.add("unknown_column", f"columns of {label} were not understood", column)
    texts = SideTexts(listing.media, language)
    paths = listing.with_suffixes(TEXT_SUFFIXES)
    taken = {label for _, label, _ in tables}
    texts.read(root, (path for path in paths if path not in taken and not _is_other(path)), account)
    for column in texts.unread:
        account.add("unknown_column", "keys of texts named after media were not understood", column)
    return [*sides, *([texts] if texts.matched else [])], notes


def _table_language(path: str, root: str) -> str | None:
    """The language in the name of a side file, "" if it has none, such as captions_val.csv; None for other files.

    A file with another name is one if its first row has a file and a caption, and its suffix is that of tables only; or
    if it is a list of files named after a split, such as train.txt.
    """
    words = [word for word in words_of(posixpath.basename(_stem(path))) if not word.isdecimal()]
    stem = "_".join(word for word in words if word not in SPLIT_NAMES)
    if locations.suffix_of(path) not in TABLE_SUFFIXES:
        return None
    column = read_column(stem)
    if column.role == "captions" and not {"caption", "captions"}.isdisjoint(words):
        return column.language
    if stem in TABLE_STEMS:
        return ""
    suffix = locations.suffix_of(path)
    is_list = suffix == ".txt" and bool(_split_of_table(path)) and not {*stem.split("_")} - LIST_FILLERS
    if (suffix == ".txt" and not is_list) or (suffix == ".json" and not _begins_with_list(f"{root}/{path}")):
        return None
    with contextlib.suppress(UsageError):
        row = next(read_table(f"{root}/{path}"), (0, {}))[1]
        is_list = is_list and locations.suffix_of(read_file(row) or "") in locations.MEDIA_SUFFIXES
        if is_list or (read_file(row) and any(read_column(name).role in ("captions", "texts") for name in row)):
            return ""
    return None


def _split_of_table(path: str) -> str:
    """The split in the name of a table, such as captions_val2014.json; "" if it has none, or several."""
    words = words_of(posixpath.basename(_stem(path)))
    splits = {SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES}
    return splits.pop() if len(splits) == 1 else ""


def _begins_with_list(location: str) -> bool:
    with locations.open_binary(location) as stream:
        return stream.read(64).lstrip(b"\xef\xbb\xbf \r\n\t").startswith(b"[")


def _is_other(path: str) -> bool:
    return posixpath.basename(_stem(path)).lower() in OTHER_STEMS


def _read_text(location: str, language: str) -> RowFields:
    """What a text says about one medium.

    Raises:
        ValueError: It is too long, not UTF-8, or not what it should be.
    """
    with locations.open_binary(location) as stream:
        data = stream.read(MAX_TEXT + 1)
    if len(data) > MAX_TEXT:
        raise ValueError(f"more than {MAX_TEXT:,} bytes")
    text = data.decode("utf-16" if data[:2] in locations.UTF16_MARKS else "utf-8-sig")
    if locations.suffix_of(location) == ".json":
        content = read_json(text)
        return read_fields(content if isinstance(content, dict) else {"captions": content}, language)
    lines = [line for line in text.splitlines() if any(map(str.isalpha, line))]  # others are numbers, such as boxes
    return RowFields(distinct(read_captions(lines, language)))


def _stem(path: str) -> str:
    return posixpath.splitext(path)[0]


def _compose(path: str) -> str:
    return unicodedata.normalize("NFC", path)


def _fold(path: str) -> str:
    """A path without the differences in case, Unicode form and percent-encoding that systems make."""
    return _compose(urllib.parse.unquote(path)).casefold()


def _fold_name(path: str) -> str:
    return _fold(posixpath.basename(path))


def _fold_suffixless(path: str) -> str:
    return "" if locations.suffix_of(path) in locations.MEDIA_SUFFIXES else _fold_name(path)


def _tail(path: str, media: Collection[str]) -> str:
    """The end of an absolute path that is the path of a medium in a folder; "" if there is none."""
    parts = path.split("/") if re.match(r"([A-Za-z]:)?/", path) else []
    tails = ("/".join(parts[at:]) for at in range(1, len(parts) - 1))
    return next((tail for tail in tails if tail in media), "")


def add_fields(item: SourceItem, rows: Sequence[RowFields]) -> SourceItem:
    """The item with what side files say about it; the first text for a field counts."""

    def first(name: str) -> str:
        return next((text for row in rows if (text := getattr(row, name))), "")

    license_name, address = first("license"), first("license_url")
    if license_name and address:  # the address as well: the name often lacks the version
        license_name = f"{license_name} <{address}>"
    return dataclasses.replace(
        item,
        split=split_named(first("split"), item.split),
        source=first("source") or item.source,
        license=license_name or address or item.license,
        captions=distinct([caption for row in rows for caption in row.captions]),
    )

"""The one place where the fields of a row about a medium are read, whatever file it comes from.

A row comes from a line of JSON, a table, the JSON member of a tar, or a dataset. columns.yaml has the names that its
columns may have, in any case. Captions are

    a text, a dict with a text, or a list of these    also where a cell of a table holds the list as JSON or Python
    {"en": …, "de": …}                                captions by language; so are the columns caption_en, de, German
    [{"from": "human", …}, {"from": "gpt", …}]        a conversation, whose first answer is the caption
"""

import ast
import functools
import json
import re
import string
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from pipeline.sources.items import SourceCaption, clean_text
from pipeline.sources.locations import MEDIA_SUFFIXES, suffix_of
from pipeline.translation.tags import language_named, names_language

_NAMES = yaml.safe_load(Path(__file__).with_name("columns.yaml").read_text("utf-8"))
_BLANK, _NO_LANGUAGE = _NAMES.pop("blank"), _NAMES.pop("no_language")
_WITH_CAPTIONS = frozenset(_NAMES.pop("with_captions"))
_ROLES = {name: role for role, names in _NAMES.items() for name in names}
FIELDS = ("language", "split", "source", "license", "license_url")
_ANSWERING = ("gpt", "assistant", "model", "bot", "chatbot")  # speakers of a conversation
_MAX_CELL = 100_000  # characters of a text that may be a list
_SIGNS = string.punctuation + "…–—„“”"
_QUOTED = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\""""


class Column(NamedTuple):
    """What a column is for.

    Attributes:
        role: A key of columns.yaml; "" if it is unknown.
        language: The language of its captions, if the name has it.
        is_language: Whether the name is only that, as `no`, which may also be the number of a row.
    """

    role: str
    language: str = ""
    is_language: bool = False


@dataclass(frozen=True)
class RowFields:
    """What a row says about its medium; "" for what it does not say. `unread` names the columns that were not read."""

    captions: tuple[SourceCaption, ...] = ()
    language: str = ""
    split: str = ""
    source: str = ""
    license: str = ""
    license_url: str = ""
    unread: tuple[str, ...] = ()


class _Twice(list[Any]):
    """The values of a column or JSON key that a row has several times."""


@functools.lru_cache(4096)
def read_column(name: str) -> Column:
    """What a column is for, by its name.

    >>> [read_column(name)[:2] for name in ("Caption_0", "captions (German)", "pt-BR", "colour")]
    [('captions', ''), ('captions', 'de'), ('captions', 'pt-BR'), ('', '')]
    """
    words = words_of(name)
    if role := _ROLES.get("_".join(words)):
        return Column(role, "id" if role == "ids" else "")
    words = [word for word in words if not word.isdecimal()]
    words = [word for word in words if word not in _WITH_CAPTIONS] or words
    for at in range(len(words) + 1):
        for text, rest in ((words[:at], words[at:]), (words[at:], words[:at])):
            role = _ROLES.get("_".join(text), "") if text else "captions"
            language = _language_in(rest)
            if role in ("captions", "texts") and (language or (text and not rest)):
                return Column(role, language, not text)
    return Column(_ROLES.get("_".join(words), ""))


def words_of(name: str) -> list[str]:
    """The words of a name in lower case: `imagePath 2` has image, path and 2."""
    return re.findall(r"[^\W\d_]+|\d+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).casefold())


def _language_in(words: Sequence[str]) -> str:
    """The language that words of a column's name stand for. Codes of three letters are mostly words: raw, new, len."""
    tag = language_named("-".join(words)) or language_named(" ".join(words)) or ""
    is_code = len(words[0]) <= 3 and (len(tag.partition("-")[0]) == 2 or tag == "fil") if words else False
    return tag if is_code or names_language(" ".join(words), tag) else ""


def read_json(text: str) -> Any:
    """Parse JSON. Raises ValueError for other text. An object's key that comes twice keeps all its values."""
    return json.loads(text, object_pairs_hook=row_of)


def row_of(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """A row from its columns and cells. A column that comes several times keeps its different values, as a list."""
    row: dict[str, Any] = {}
    for name, value in pairs:
        if name not in row or row[name] == value:
            row[name] = value
        else:
            row[name] = _Twice([*(row[name] if isinstance(row[name], _Twice) else [row[name]]), value])
    return row


def read_file(row: Mapping[str, Any]) -> str | None:
    """The path in a row; "" where its cell is empty, None where no column is for one."""
    cells = {"_".join(words_of(name)): value for name, value in row.items() if read_column(name).role == "file"}
    for name in sorted(cells, key=_NAMES["file"].index):
        value = cells[name]
        value = value[0] if isinstance(value, list) and len(value) == 1 else value
        if not _is_blank(value):
            return clean_text(value)
    if cells:
        return ""
    roles = {name: read_column(name).role for name in row}
    media = [name for name, value in row.items() if isinstance(value, str) and is_medium(value)]
    names = [name for name in media if not roles[name]]
    names += [*(name for name, role in roles.items() if role == "key"), *media]
    names += [name for name in row if name.lower() == "id"]
    key = next((row[name] for name in names), None)
    return None if _is_blank(key) else clean_text(key)


def without_address(path: str) -> str:
    """A path or URL without what follows the name of a file in it, or stands before its path."""
    path = re.sub(r"^file://|^/data/local-files/\?d=", "", path)
    return re.sub(r"[?#].*", "", path) if re.match(r"https?://", path) else re.sub(r"#\d+$", "", path)


def is_medium(cell: str) -> bool:
    """Whether a cell is the path or URL of a picture or video, by its suffix."""
    return suffix_of(without_address(cell)) in MEDIA_SUFFIXES


def read_fields(row: Mapping[str, Any], language: str) -> RowFields:
    """Read the fields of a row.

    Args:
        row: The row.
        language: BCP 47 tag of captions whose row names no language.

    Raises:
        ValueError: A field cannot be understood, or its captions are not text.
    """
    columns = [(read_column(name), name, value) for name, value in row.items()]
    fields = dict.fromkeys(FIELDS, "")
    for column, name, value in columns:
        if column.role in fields:
            fields[column.role] = fields[column.role] or _read_text(name, value)
    language = _read_language(fields) or language
    captions: dict[str, list[SourceCaption]] = {"captions": [], "texts": []}
    columns_read, unread = dict[str, list[SourceCaption]](), []
    try:
        for column, name, value in columns:
            role = column.role
            if role == "ids" and isinstance(value, str) and " " in value.strip():
                role = "captions"
            if role in captions and not (column.is_language and _has_no_letters(value)):
                columns_read[name] = list(read_captions(value, column.language or language))
                captions[role] += columns_read[name]
                if len(_answers(value)) > 1:
                    unread.append(f"{name} after the first answer")
            elif not role and not _is_blank(value) and not (isinstance(value, str) and is_medium(value)):
                unread.append(name)
    except RecursionError as error:
        raise ValueError("its captions are lists nested without end") from error
    chosen = distinct(captions["captions"] or captions["texts"])
    texts = {caption.text for caption in chosen}
    unread += [name for name, read in columns_read.items() if any(caption.text not in texts for caption in read)]
    return RowFields(chosen, **fields, unread=tuple(unread))


def read_captions(value: Any, language: str) -> Iterator[SourceCaption]:
    """Captions in a text, a dict, or a list of these; blank ones are dropped.

    Raises:
        ValueError: The value is something else.
        RecursionError: Lists are nested without end.
    """
    if _is_blank(value):
        return
    if isinstance(value, str):
        content = _unpack(value)
        if isinstance(content, str):
            yield SourceCaption(clean_text(content), language)
        else:
            yield from read_captions(content, language)
    elif isinstance(value, dict):
        if all(name.isdecimal() or (name not in _ROLES and language_named(name)) for name in value):
            for name, part in value.items():
                yield from read_captions(part, language_named(name) or language)
            return
        fields = read_fields(value, language)
        if fields.unread and not any(read_column(name).role in ("captions", "texts") for name in value):
            raise ValueError(f"there is no caption in an object with {', '.join(value)}: name it `text`")
        yield from fields.captions
    elif isinstance(value, list | tuple):
        for part in _answers(value)[:1] or value:
            yield from read_captions(part, language)
    else:
        raise ValueError(f"a caption must be a text or a list of texts, not {value!r} ({type(value).__name__})")


def _answers(value: Any) -> list[Any]:
    """The answers in a conversation, a list of `{"from": SPEAKER, "value": TEXT}` or of `role` and `content`."""
    turns = value if isinstance(value, list) else []
    if not all(isinstance(turn, dict) and ("from" in turn or "role" in turn) for turn in turns):
        return []
    speakers = [(turn.get("from") or turn.get("role"), turn) for turn in turns]
    return [turn.get("value") or turn.get("content") for speaker, turn in speakers if speaker in _ANSWERING]


def _is_blank(value: Any) -> bool:
    """Whether a cell holds nothing; tables write that in words, too."""
    if isinstance(value, str):
        return not value.strip(_SIGNS + string.whitespace) or value.strip().casefold() in _BLANK
    return value is None or value != value or value in ([], {}, ())  # NaN differs from itself


def _has_no_letters(value: Any) -> bool:
    return not any(map(str.isalpha, value)) if isinstance(value, str) else not isinstance(value, list | dict)


def _read_text(name: str, value: Any) -> str:
    values = value if isinstance(value, list) else [value]
    texts = list(dict.fromkeys(clean_text(part) for part in values if not _is_blank(part)))
    if len(texts) > 1:
        raise ValueError(f"{name} has several values, {' and '.join(map(repr, texts[:3]))}: keep one")
    return texts[0] if texts else ""


def _read_language(fields: dict[str, str]) -> str:
    """Make the language of a row canonical; "" where it says that it does not know."""
    name = fields["language"]
    tag = "" if not name or name.casefold() in _NO_LANGUAGE else language_named(name)
    if tag is None:
        raise ValueError(f"its language {name!r} is not known: give a BCP 47 tag such as de, zh or pt-BR")
    fields["language"] = tag
    return tag


def _unpack(text: str) -> Any:
    r"""The list or dict that a text is the JSON, the Python or the NumPy form of; else the text.

    >>> _unpack("['A cat.', nan, \"It's a dog.\"]"), _unpack("['A cat.' 'A dog.']"), _unpack("[not a list]")
    (['A cat.', None, "It's a dog."], ['A cat.', 'A dog.'], '[not a list]')
    """
    inner = text.strip().removeprefix("array(")
    if inner[:1] not in ("[", "{", "(") or len(inner) > _MAX_CELL:
        return text
    try:
        content = read_json(inner)
    except (ValueError, RecursionError):
        literal = re.sub(r",?\s*dtype=\w+\)$", "", inner)
        literal = re.sub(rf"({_QUOTED})(\s+(?=['\"]))?|\bnan\b", _as_python, literal)
        with warnings.catch_warnings(action="ignore"):  # backslashes
            try:
                content = ast.literal_eval(literal)
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                return text
    is_list = isinstance(content, list | tuple) and all(isinstance(part, str | dict | None) for part in content)
    return content if isinstance(content, dict) or (is_list and content) else text


def _as_python(match: re.Match[str]) -> str:
    """A literal with the comma that NumPy leaves out; None for NaN."""
    return f"{match[1]}{',' if match[2] else ''}" if match[1] else "None"


def distinct(captions: Iterable[SourceCaption]) -> tuple[SourceCaption, ...]:
    """The captions in order, each once."""
    return tuple(dict.fromkeys(captions))

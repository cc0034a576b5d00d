"""Removes what is not language: HTML from sources and translations, marks of models from translations."""

import html
import html.entities
import re
from pathlib import Path

import yaml

_ENTITY = re.compile(r"&(?:#\d{1,7}|#x[0-9a-f]{1,6}|[a-z][a-z0-9]{1,30});", re.IGNORECASE)
_ATTRIBUTE = r"""\s+[\w:-]+\s*=\s*(?:"[^"<>]*"|'[^'<>]*'|[^\s"'<>]+)"""
_TAG = re.compile(
    rf"""<!--[^<>]*-->|</?(?:(br|p|div|li|ul|ol|tr|td|th|table|hr|img|h[1-6]|figcaption|figure|blockquote)
    |a|abbr|b|big|center|cite|code|em|font|i|mark|q|s|small|span|strong|sub|sup|tt|u)(?:{_ATTRIBUTE})*\s*/?>""",
    re.IGNORECASE | re.VERBOSE,
)
_ROUNDS = 3  # "&amp;quot;" is escaped twice

# Marks that models and tokenizers leave in a translation, and what stands for them.
_LISTED = yaml.safe_load(Path(__file__).with_name("marks.yaml").read_text("utf-8"))
_MARKS = [(re.compile(pattern), replacement) for pattern, replacement in _LISTED]


def _character(entity: re.Match[str]) -> str:
    known = entity[0][1] == "#" or entity[0][1:] in html.entities.html5
    return html.unescape(entity[0]) if known else entity[0]


def plain_text(text: str) -> str:
    """The text without HTML: entities as characters, tags removed. Unchanged if nothing would be left.

    >>> plain_text("<b>A cat</b> &amp; a dog<br/>"), plain_text("a < b, AT&T")
    ('A cat & a dog', 'a < b, AT&T')
    """
    plain = text
    for _ in range(_ROUNDS):
        unescaped = _ENTITY.sub(_character, plain)
        shorter = _TAG.sub(lambda match: " " if match[1] else "", unescaped)
        if shorter == plain:
            break
        plain = re.sub(r"[^\S\n]+", " ", shorter).strip()
    return plain or text


def without_marks(text: str, source: str) -> str:
    """A translation without HTML and marks of models, as far as its source has none. Unchanged if nothing is left."""
    cleaned = plain_text(text) if plain_text(source) == source else text
    for pattern, replacement in _MARKS:
        if not pattern.search(source) and pattern.search(cleaned):
            cleaned = re.sub(r"[^\S\n]+", " ", pattern.sub(replacement, cleaned)).strip()
    return cleaned or text

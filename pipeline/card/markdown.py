"""Text of others in Markdown: it cannot break out of its cell, and names no place of this machine."""

import html
import re
from typing import Any

from markupsafe import Markup

from pipeline.hashing import short_hash

JOINERS = "\u200c\u200d"  # not printable, but emoji, Persian and Indian scripts are written with them


def escape(text: str) -> str:
    """Text that Markdown shows literally, on one line: it cannot open a tag, a cell, a link or a heading."""
    text = " ".join("".join(c if c.isprintable() or c.isspace() or c in JOINERS else "\ufffd" for c in text).split())
    # An underscore within a word is literal anyway, and file names stay readable.
    return re.sub(r"[\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_])|^#", r"\\\g<0>", html.escape(text, quote=False))


def public(text: str) -> str:
    """The text with `…/` in place of the folders of absolute paths, and of all of a URL but its last part.

    >>> public("/home/me/my photos/a.jpg: there is no such file")
    '…/a.jpg: there is no such file'
    """
    return without_folders(
        re.sub(r"[A-Za-z][\w+.-]*://[^\s'\"?#]*?([^\s'\"/?#]*)/?([?#][^\s'\"]*)?(?=[\s'\"]|$)", r"…/\1", text)
    )


def without_folders(text: str) -> str:
    """The text with `…/` in place of the folders of absolute paths; web addresses stay."""
    return re.sub(r"(?<![^\s'\"(\[=])~?/([^:'\"]*/)?(?=\S)", "…/", text)


def public_id(item_id: str) -> str:
    """The id with a hash in place of the folders of an absolute path, or of a URL that only some can open.

    >>> public_id("holidays/a.jpg"), public_id("/home/me/a.jpg")
    ('holidays/a.jpg', '9c1db200/a.jpg')
    """
    hidden = r"(^|(?<!:)/)(/(?:.*/)?|(?!https?:)[a-z][a-z0-9+.-]*:/.*/)"
    return re.sub(hidden, lambda match: f"{match[1]}{short_hash(match[2])[:8]}/", item_id, count=1)


def public_uri(uri: str) -> str:
    """A web address without names, keys and queries; "" for other places."""
    address = re.fullmatch(r"(https?://)(?:[^/?#@]*@)?([^?#]+).*", uri, re.DOTALL)
    return address[1] + address[2] if address else ""


def cut(text: str, limit: int) -> str:
    """The text on one line, with `…` for what comes after `limit` characters."""
    text = " ".join(text.split())
    return text if len(text) <= limit else f"{text[: limit - 1].rstrip()}…"


def show(value: Any) -> Markup:
    """A value as a card shows it: escaped unless it is `Markup`, numbers with thousands separators."""
    if isinstance(value, Markup):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        text = f"{value:,}"
    else:
        text = escape(f"{value:g}" if isinstance(value, float) else str(value))
    return Markup(text)  # noqa: S704 - escaped above


def plural(count: int, noun: str) -> str:
    """A count with its noun: `1 item`, `2,000 items`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"

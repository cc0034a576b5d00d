"""A Python dict literal from names to lists of names, read as data: BigFile's `video2frames.txt`, tens of megabytes.

    {'video0': ['video0_0', 'video0_1'], 'video1': []}

It is what `repr` writes of such a dict, in Python 2 too. Nothing is evaluated: whatever is not a string in its place
(a call, a number, a nested dict, a comprehension, more text behind the end) is refused with its line and column.
"""

import re
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.sources.benchmarks.checks import read_bytes

WANTED = "a dict of strings to lists of strings, as Python's repr writes it"
# Blanks, then a mark or a string; a string's first group holds its text between the quotes.
TOKEN = re.compile(
    r"""[ \t\r\n]*(?:([{}\[\](),:])|u?'([^'\\\n]*(?:\\.[^'\\\n]*)*)'|u?"([^"\\\n]*(?:\\.[^"\\\n]*)*)")""", re.DOTALL
)
BLANKS = re.compile(r"[ \t\r\n]*")
# The lists that all real files hold, at one step: strings without a backslash, by a comma each and no other blanks.
PLAIN_LIST = re.compile(r"""[ ]?\['[^'\\\n]*'(?:, '[^'\\\n]*')*\]""")
ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[\\'\"abfnrtv]|.|\Z)", re.DOTALL)
LETTERS = {
    "\\": "\\",
    "'": "'",
    '"': '"',
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "v": "\v",
}


def read_names(path: Path) -> dict[str, list[str]]:
    """The dict in a file, in UTF-8 or else ISO-8859-1. Raises UsageError for anything else than such a dict."""
    data = read_bytes(path)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("iso-8859-1")
    return parse(text, str(path))


def parse(text: str, where: str) -> dict[str, list[str]]:
    """The dict that a text is, in its order; `where` names it in messages.

    Raises UsageError with line and column for anything else, and for a key that comes twice.
    """
    return _Reader(text, where).dict()


class _Reader:
    """Goes through a text token by token. `at` is the place of the next one."""

    def __init__(self, text: str, where: str) -> None:
        self.text, self.where, self.at = text, where, 0

    def dict(self) -> dict[str, list[str]]:
        made: dict[str, list[str]] = {}
        self.mark("{")
        while not self.skip("}"):
            start = BLANKS.match(self.text, self.at).end()  # type: ignore[union-attr]
            key = self.string()
            if key in made:
                raise self.bad(f"the key {key!r} a second time", start)
            self.mark(":")
            made[key] = self.list()
            if not self.skip(","):
                self.mark("}")
                break
        self.at = BLANKS.match(self.text, self.at).end()  # type: ignore[union-attr]
        if self.at < len(self.text):
            raise self.bad("more text behind the dict", self.at)
        return made

    def list(self) -> list[str]:
        if plain := PLAIN_LIST.match(self.text, self.at):
            self.at = plain.end()
            return plain[0].strip()[2:-2].split("', '")
        if self.skip("("):
            end = ")"
        else:
            self.mark("[")
            end = "]"
        made: list[str] = []
        while not self.skip(end):
            made.append(self.string())
            if not self.skip(","):
                if end == ")" and len(made) == 1:  # ('a') is no tuple
                    raise self.bad("one string in brackets", self.at)
                self.mark(end)
                break
        return made

    def skip(self, mark: str) -> bool:
        token = TOKEN.match(self.text, self.at)
        if token is None or token[1] != mark:
            return False
        self.at = token.end()
        return True

    def mark(self, mark: str) -> None:
        if not self.skip(mark):
            raise self.unexpected(f"`{mark}`")

    def string(self) -> str:
        token = TOKEN.match(self.text, self.at)
        if token is None or token[1]:
            raise self.unexpected("a string")
        inside: str = token[2] if token[2] is not None else token[3]
        first = token.start(2) if token[2] is not None else token.start(3)
        self.at = token.end()
        return ESCAPE.sub(lambda escape: self.letter(escape, first), inside) if "\\" in inside else inside

    def letter(self, escape: re.Match[str], first: int) -> str:
        """What a backslash and what follows it stand for; `first` is the place of the string's first letter."""
        code = escape[1]
        if code in LETTERS:
            return LETTERS[code]
        number = int(code[1:], 16) if code[:1] in ("x", "u", "U") and len(code) > 1 else -1
        if not 0 <= number <= 0x10FFFF:
            raise self.bad(f"the escape \\{code}", first + escape.start())
        return chr(number)

    def unexpected(self, wanted: str) -> UsageError:
        at = BLANKS.match(self.text, self.at).end()  # type: ignore[union-attr]
        got = repr(self.text[at : at + 20]) if at < len(self.text) else "the end of the file"
        return self.bad(f"{got} in the place of {wanted}", at)

    def bad(self, got: str, at: int) -> UsageError:
        line = self.text.count("\n", 0, at) + 1
        column = at - (self.text.rfind("\n", 0, at) + 1) + 1
        return UsageError(
            f"--input: {self.where} line {line:,}, column {column:,}: got {got}, wanted {WANTED}: it is read as data "
            "and nothing in it is run; fetch the file again"
        )

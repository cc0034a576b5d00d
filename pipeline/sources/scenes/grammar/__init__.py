"""Captions of scenes in words: a small grammar for each language."""

from collections.abc import Sequence

from pipeline.errors import UsageError
from pipeline.sources.scenes.content import Message
from pipeline.sources.scenes.grammar.base import Grammar
from pipeline.sources.scenes.grammar.chinese import CHINESE
from pipeline.sources.scenes.grammar.czech import CZECH
from pipeline.sources.scenes.grammar.english import ENGLISH
from pipeline.sources.scenes.grammar.german import GERMAN

SOURCE = "en"
GRAMMARS: dict[str, Grammar] = {SOURCE: ENGLISH, "de": GERMAN, "cs": CZECH, "zh": CHINESE}
TARGETS = tuple(language for language in GRAMMARS if language != SOURCE)


def caption(message: Message, language: str) -> str:
    """The message as a sentence."""
    grammar = GRAMMARS[language]
    return grammar.sentence(grammar.words(message))


def check_languages(languages: Sequence[str]) -> tuple[str, ...]:
    """Target languages, each once, in the order of TARGETS. Raises UsageError for any other."""
    unknown = [repr(language) for language in languages if language not in TARGETS]
    if unknown or not languages:
        given = ", ".join(unknown) or "no language"
        raise UsageError(f"--languages: got {given}, expected one or more of {', '.join(TARGETS)}")
    return tuple(language for language in TARGETS if language in languages)

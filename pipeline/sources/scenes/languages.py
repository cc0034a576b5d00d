"""The languages of captions: which grammar writes each, and how its words become a sentence."""

from collections.abc import Callable, Sequence

from pipeline.errors import UsageError
from pipeline.sources.scenes import chinese, czech, english, french, german, japanese
from pipeline.sources.scenes.messages import Message

SOURCE = "en"
WORDS: dict[str, Callable[[Message], list[str]]] = {
    "en": english.words,
    "de": german.words,
    "fr": french.words,
    "cs": czech.words,
    "zh": chinese.words,
    "ja": japanese.words,
}
TARGETS = tuple(language for language in WORDS if language != SOURCE)
UNSPACED = {"zh", "ja"}


def caption(said: Message, language: str) -> str:
    """The message as a sentence."""
    return sentence(WORDS[language](said), language)


def sentence(words: Sequence[str], language: str) -> str:
    """The words with a capital at the start and a full stop at the end."""
    if language in UNSPACED:
        return "".join(words).rstrip("，、") + "。"
    text = " ".join(words).rstrip(",")
    return f"{text[:1].upper()}{text[1:]}."


def check_languages(languages: Sequence[str]) -> tuple[str, ...]:
    """Target languages, each once, in the order of TARGETS. Raises UsageError for any other."""
    for language in languages:
        if language not in TARGETS:
            raise UsageError(f"--languages: got {language!r}, wanted some of {', '.join(TARGETS)}")
    if not languages:
        raise UsageError(f"--languages: got none, wanted some of {', '.join(TARGETS)}")
    return tuple(language for language in TARGETS if language in languages)

"""BCP 47 language tags: checked at the command line, and translated into each model family's own spelling.

There is no table of spellings: candidates are generated and looked up among the tags that the model itself has.
"""

import contextlib
import functools
import re
from collections.abc import Iterable
from pathlib import Path

import langcodes
import yaml
from langcodes.tag_parser import LanguageTagError

from pipeline.errors import UsageError

_CODES = yaml.safe_load(Path(__file__).with_name("tags.yaml").read_text("utf-8"))
_NO_LANGUAGE = ("und", "mul", "mis", "zxx")


def check_language(tag: str, option: str) -> str:
    """The canonical BCP 47 tag: `deu` is `de`, `zh_tw` is `zh-TW`.

    Raises:
        UsageError: `tag` is not a language tag. The message names `option` and suggests a similar tag.
    """
    try:
        language = langcodes.Language.get(tag)
        known = language.language and len(language.language) < 4 and language.language not in _NO_LANGUAGE
        if known and language.is_valid() and not language.extlangs:
            return langcodes.standardize_tag(language, macro=True)
    except LanguageTagError:
        pass
    similar = _similar_tag(tag.strip()) if tag.isprintable() else None
    hint = f"did you mean {name_language(similar)}?" if similar else "give a BCP 47 tag such as de, zh or pt-BR"
    raise UsageError(f"{option}: {tag!r} is not a language tag: {hint}")


@functools.lru_cache(4096)
def language_named(text: str) -> str | None:
    """The canonical tag for a language as data name it: by a tag in any spelling, a locale, a territory or its name.

    >>> [language_named(text) for text in ("zh_CN", "en_US.UTF-8", "jp", "Deutsch", "Chinese (Simplified)", "?")]
    ['zh-CN', 'en-US', 'ja', 'de', 'zh-Hans', None]
    """
    text = text.strip()
    with contextlib.suppress(UsageError):
        return check_language(re.split("[.@]", text)[0], "")
    name, _, kind = text.rstrip(")").partition(" (")
    similar = next((tag for part in (f"{kind} {name}", text, name) if (tag := _similar_tag(part.strip()))), None)
    return check_language(similar, "") if similar else None


def names_language(text: str, tag: str) -> bool:
    """Whether a text is a language's whole name, in English or in itself."""
    language = langcodes.Language.get(tag or "und")
    names = (language.display_name(), language.autonym())
    return set(text.casefold().split()) in [set(re.findall(r"\w+", name.casefold())) for name in names]


def name_language(tag: str) -> str:
    """A tag with its language's English name, for messages: `dee (Dewoin)`, `pt-BR (Portuguese, Brazil)`."""
    name = langcodes.Language.get(tag).display_name()
    return f"{tag} ({name.replace(' (', ', ').replace(')', '')})"


def language_of(tag: str) -> str:
    """The language of a tag by its shortest code: `deu` and `de-AT` are `de`. Text that is not a tag stays as it is."""
    try:
        return langcodes.Language.get(langcodes.standardize_tag(tag, macro=True)).language or tag
    except LanguageTagError:
        return tag


def model_tag(tag: str, known: Iterable[str], template: str) -> str | None:
    """A model's own token for a language.

    Args:
        tag: BCP 47 tag.
        known: The language tokens in the model's vocabulary.
        template: How its family writes them: `__{}__`, `<2{}>`, `>>{}<<`, or `{}` for `deu_Latn`.

    Returns:
        The token of the tag's region or script, else of the language; None where the model does not have it.
    """
    tokens = set(known)
    language, codes = langcodes.Language.get(tag), _codes(tag)
    parts = filter(None, (language.territory, language.script, language.maximize().script))
    suffixes = [spelling for part in parts for spelling in (part, part.lower())]
    names = [f"{code}{sign}{suffix}" for suffix in suffixes for code in codes for sign in "_-"] + codes
    token = next((token for name in names if (token := template.format(name)) in tokens), None)
    if token or language.script:
        return token
    # The tag asks for no script: any in which the model writes the language.
    starts = tuple(f"{template.partition('{')[0]}{code}_" for code in codes)
    return min((token for token in tokens if token.startswith(starts)), default=None)


def _codes(tag: str) -> list[str]:
    """Codes of the tag's language, most likely first: `de` gives de, deu; `fa` gives pes, fa, fas."""
    code = langcodes.Language.get(tag).language or tag
    # The member first: a model that has both uses the macrolanguage's code for another member.
    codes = [_CODES["members"].get(code, code), code, _CODES["former"].get(code, code)]
    for short in (code, codes[0], codes[2]):
        for variant in ("T", "B"):
            with contextlib.suppress(LookupError):
                codes.append(langcodes.Language.get(short, normalize=False).to_alpha3(variant))
    return list(dict.fromkeys(codes))


def _similar_tag(tag: str) -> str | None:
    """The tag that was probably meant by a territory (`jp`) or a language's name."""
    if len(tag) == 2 and tag.isascii() and tag.isalpha():
        spoken = langcodes.Language.get(f"und-{tag}").maximize().language  # en where nothing is known
        return spoken if spoken != "en" or tag.lower() in ("us", "gb", "au", "nz") else None
    try:
        return langcodes.find(tag).to_tag() if len(tag) > 2 else None
    except (LookupError, ValueError):
        return None

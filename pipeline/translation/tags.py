"""Language tags: BCP 47 checked at the edge, and each model family's own spelling of them.

A family's spelling is not looked up in a table of ours but among the tags that the model itself has.
"""

import difflib
from collections.abc import Iterable

import langcodes

from pipeline.errors import UsageError

# What BCP 47 calls by a macrolanguage's tag, models of many languages call by its commonest member's.
_MEMBERS = {
    "ar": "arb", "az": "azj", "et": "ekk", "fa": "pes", "ku": "kmr", "lv": "lvs", "mg": "plt", "mn": "khk",
    "ms": "zsm", "ne": "npi", "no": "nob", "om": "gaz", "or": "ory", "ps": "pbt", "qu": "quy", "sq": "als",
    "sw": "swh", "uz": "uzn", "yi": "ydd", "zh": "cmn", "fil": "tgl", "gn": "gug", "kr": "knc",
}  # fmt: skip
# What else models call a language by, most of it out of date.
_FORMER = {"he": "iw", "id": "in", "jv": "jw", "fil": "tl", "nb": "no", "nso": "ns"}
_NO_LANGUAGE = ("und", "mul", "mis", "zxx")
# The languages whose names are compared with a misspelt one.
_COMMON = (
    "af am ar az be bg bn bs ca cs cy da de el en es et eu fa fi fil fr ga gl gu ha he hi hr hu hy id ig is it ja ka "
    "kk km kn ko lo lt lv mk ml mn mr ms my nb ne nl no pa pl ps pt ro ru si sk sl so sq sr sv sw ta te th tr uk ur uz "
    "vi xh yo yue zh zu"
)


def check_language(tag: str, option: str) -> str:
    """The canonical BCP 47 tag: `deu` is `de`, `zh_tw` is `zh-TW`. `option` is named in the UsageError otherwise."""
    try:
        language = langcodes.Language.get(tag)
        known = language.language and len(language.language) < 4 and language.language not in _NO_LANGUAGE
        if known and language.is_valid() and not language.extlangs:
            return langcodes.standardize_tag(language, macro=True)
    except langcodes.LanguageTagError:
        pass
    near = _nearest(tag.strip()) if tag.isprintable() else None
    hint = f"did you mean {named(near)}?" if near else "wanted a BCP 47 tag such as de, zh or pt-BR"
    raise UsageError(f"{option}: got {tag!r}, which is no language tag: {hint}")


def named(tag: str) -> str:
    """A tag with its language's English name, for messages: `dee (Dewoin)`, `pt-BR (Portuguese, Brazil)`."""
    return f"{tag} ({_name(tag).replace(' (', ', ').replace(')', '')})"


def language_of(tag: str) -> str:
    """The language of a tag alone, by its shortest code: `deu` and `de-AT` are `de`. What is no tag stays as it is."""
    try:
        return langcodes.Language.get(langcodes.standardize_tag(tag, macro=True)).language or tag
    except langcodes.LanguageTagError:
        return tag


def nllb_tag(tag: str, known: Iterable[str]) -> str | None:
    """The model's tag of the form `deu_Latn`, or None where it has none for the language."""
    have = set(known)
    script = langcodes.Language.get(tag).maximize().script
    codes = _codes(tag)
    exact = [f"{code}_{script}" for code in codes if f"{code}_{script}" in have]
    # Where the tag asks for no script, one in which the model writes the language at all.
    other = (
        [] if langcodes.Language.get(tag).script else sorted(t for t in have for c in codes if t.startswith(f"{c}_"))
    )
    return next(iter(exact + other), None)


def m2m_tag(tag: str, known: Iterable[str]) -> str | None:
    """The model's tag of the form `__de__`, or None."""
    return _first((f"__{code}__" for code in _codes(tag)), known)


def madlad_tag(tag: str, known: Iterable[str]) -> str | None:
    """The model's tag of the form `<2de>`, or None."""
    return _first((f"<2{code}>" for code in _with_script(tag)), known)


def opus_tag(tag: str, known: Iterable[str]) -> str | None:
    """The model's tag of the form `>>deu<<`, or None."""
    return _first((f">>{code}<<" for code in _with_script(tag)), known)


def mbart_tag(tag: str, known: Iterable[str]) -> str | None:
    """The model's tag of the form `de_DE`, or None."""
    have, territory = sorted(known), langcodes.Language.get(tag).maximize().territory
    of_language = [each for code in _codes(tag) for each in have if each.startswith(f"{code}_")]
    return next(iter([each for each in of_language if each.endswith(f"_{territory}")] + of_language), None)


def _codes(tag: str) -> list[str]:
    """Codes of the language alone, likeliest first: `de` gives de, deu; `fa` gives pes, fa, fas."""
    code = langcodes.Language.get(tag).language or tag
    found = [code]
    for each in (_MEMBERS.get(code, code), _FORMER.get(code, code)):
        found.append(each)
    for each in (code, *found[1:]):
        for variant in ("T", "B"):
            try:
                found.append(langcodes.Language.get(each, normalize=False).to_alpha3(variant))
            except LookupError:
                continue
    # The member first: a model that has both means by the macrolanguage's code another member.
    return list(dict.fromkeys([found[1], *found]))


def _with_script(tag: str) -> list[str]:
    """Codes with the tag's region or script, then those without: `zh_TW`, `zh_Hant`, `zh`, each in several ways."""
    language = langcodes.Language.get(tag)
    parts = [part for part in (language.territory, language.script, language.maximize().script) if part]
    codes = _codes(tag)
    spelt = [each for part in parts for each in (part, part.lower())]
    return [f"{code}{sign}{part}" for part in spelt for code in codes for sign in "_-"] + codes


def _first(candidates: Iterable[str], known: Iterable[str]) -> str | None:
    have = set(known)
    return next((candidate for candidate in candidates if candidate in have), None)


def _nearest(tag: str) -> str | None:
    if len(tag) == 2 and tag.isascii() and tag.isalpha():
        spoken = langcodes.Language.get(f"und-{tag}").maximize().language  # en where nothing is known
        return spoken if spoken != "en" or tag.lower() in ("us", "gb", "au", "nz") else None
    try:
        return langcodes.find(tag).to_tag() if len(tag) > 2 else None
    except (LookupError, ValueError):
        pass
    names = {_name(code).casefold(): code for code in _COMMON.split()}
    near = difflib.get_close_matches(tag.casefold(), names, 1) or difflib.get_close_matches(
        tag.split("-")[0].split("_")[0].casefold(), names, 1
    )
    return names[near[0]] if near else None


def _name(tag: str) -> str:
    return langcodes.Language.get(tag).display_name()

"""Views: the questions put to a captioner about one item, each with its prompt and decoding.

`views.yaml` defines the built-in views. Another YAML file of the same form defines others:

    colours: {prompt: "Name the colours in this {media}.", max_tokens: 64, temperature: 0.0}

`{media}` becomes "picture" or "video". `language: de` says that answers are to be German; without it, they are to be in
the language that the prompt names ("… in German."), or else in that of the prompt.
"""

import dataclasses
import difflib
import functools
import re
from pathlib import Path
from typing import Any

import langcodes

from pipeline.errors import UsageError
from pipeline.hashing import short_hash
from pipeline.quality.languages import facts, identify
from pipeline.translation.tags import check_language
from pipeline.yaml_file import read_yaml

EXAMPLE = "views such as `name: {prompt: …, max_tokens: …, temperature: …}`"
VIDEO_PREAMBLE = "These {count} pictures are frames of one video, in order, taken at {times}. "


@dataclasses.dataclass(frozen=True)
class View:
    """One question. `max_tokens` limits the answer in tokens; `temperature` 0 is greedy decoding."""

    name: str
    prompt: str
    max_tokens: int = 128
    temperature: float = 0.0
    language: str = ""  # BCP 47; "" leaves it to the prompt

    @functools.cached_property
    def answer_language(self) -> str:
        """The language that answers are to be in, BCP 47."""
        if self.language:
            return self.language
        own_names, english_names = _language_names()
        words = re.findall(r"\w+", self.prompt.lower())
        named = [own_names[word] for word in words if word in own_names] + [
            english_names[word]
            for place, word in enumerate(words)
            if word in english_names and not {"in", "into", "use", "using"}.isdisjoint(words[max(0, place - 2) : place])
        ]
        built_in = self.prompt in (view.prompt for view in BUILT_IN.values())
        return named[-1] if named else "en" if built_in else identify(self.prompt) or "en"

    def settings(self) -> dict[str, Any]:
        """All fields, for fingerprints; without a language, as before views had one."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value or name != "language"}

    @functools.cached_property
    def prompt_id(self) -> str:
        """Hash of the prompt's text, so that rows made with another wording have another id."""
        return short_hash(VIDEO_PREAMBLE + self.prompt)


@dataclasses.dataclass(frozen=True)
class Answer:
    """A captioner's answer to one view, before cleaning. Token counts are None if they are unknown."""

    text: str
    finish_reason: str  # "stop", "length", or any other value of the server
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    flags: tuple[str, ...] = ()


def parse_views(text: str) -> tuple[View, ...]:
    """Views named by `--views`: built-in names separated by commas, and YAML files that define or redefine views.

    Raises:
        UsageError: A name is unknown, or a file does not define valid views.
    """
    known, chosen = dict(BUILT_IN), {}
    for name in filter(None, (part.strip() for part in text.split(","))):
        if name.endswith((".yaml", ".yml")):
            defined = _read_views(Path(name))
            known.update(defined)
            chosen.update(defined)
        elif name in known:
            chosen[name] = known[name]
        else:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(known)}, or a .yaml file"
            raise UsageError(f"--views: there is no view {name!r}: {hint}")
    if not chosen:
        raise UsageError("--views: expected at least one view, for example --views short,detail")
    return tuple(chosen.values())


@functools.cache
def _language_names() -> tuple[dict[str, str], dict[str, str]]:
    """Languages by their own names and by their English ones, in lower case."""
    tags = {tag: langcodes.Language.get(tag) for tag in facts()["usual_length"] if tag != "en"}
    own = {language.autonym().lower(): tag for tag, language in tags.items()}
    return own, {"english": "en"} | {language.display_name("en").lower(): tag for tag, language in tags.items()}


def _read_views(path: Path) -> dict[str, View]:
    loaded = read_yaml(path, "--views", EXAMPLE)
    return {name: _view(name, fields, f"--views: {path}: view {name!r}") for name, fields in loaded.items()}


def _view(name: object, fields: object, place: str) -> View:
    try:
        view = View(str(name), **fields)  # type: ignore[arg-type]
    except TypeError as error:
        raise UsageError(f"{place}: {error}. Expected {EXAMPLE}") from error
    if not view.name.replace("_", "").replace("-", "").isalnum():
        raise UsageError(f"{place}: the name of a view consists of letters, digits, - and _")
    if not isinstance(view.prompt, str) or not view.prompt.strip():
        raise UsageError(f"{place} has no prompt: add `prompt: text`")
    try:  # YAML reads "\ud83d\ude00" as two halves of a character
        prompt = view.prompt.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError as error:
        raise UsageError(f"{place}: the prompt has half of a character, such as \\ud83d: write all of it") from error
    if view.language:
        view = dataclasses.replace(view, language=check_language(str(view.language), place))
    numbers = type(view.max_tokens) is int and isinstance(view.temperature, int | float)
    if not numbers or view.max_tokens < 1 or not 0 <= view.temperature <= 2:
        raise UsageError(f"{place}: max_tokens is a whole number above 0, and temperature a number from 0 to 2")
    return dataclasses.replace(view, prompt=prompt)


BUILT_IN = _read_views(Path(__file__).with_name("views.yaml"))
DEFAULT_VIEWS = ",".join(BUILT_IN)

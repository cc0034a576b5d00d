"""Views: the questions put to a captioner about one item, each with its prompt and decoding.

The built-in views cover what a caption of a retrieval set may mention. A YAML file defines others:

    colours: {prompt: "Name the colours in this {media}.", max_tokens: 64, temperature: 0.0}

`{media}` becomes "picture" or "video".
"""

import dataclasses
import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.hashing import short_hash
from pipeline.yaml_file import read_yaml

VIDEO_PREAMBLE = "These {count} pictures are frames of one video, in order, taken at {times}. "


@dataclasses.dataclass(frozen=True)
class View:
    """One question. `max_tokens` limits the answer in tokens; `temperature` 0 is greedy decoding."""

    name: str
    prompt: str
    max_tokens: int = 128
    temperature: float = 0.0

    @property
    def prompt_id(self) -> str:
        """Hash of the prompt's text, so that rows made with another wording have another id."""
        return short_hash(VIDEO_PREAMBLE + self.prompt)

    def ask(self, times_s: Sequence[float]) -> str:
        """The prompt for a picture (no times), or for a video's frames taken at `times_s`, in seconds."""
        if not times_s:
            return self.prompt.replace("{media}", "picture")
        times = ", ".join(f"{time:.1f} s" for time in times_s)
        return VIDEO_PREAMBLE.format(count=len(times_s), times=times) + self.prompt.replace("{media}", "video")


@dataclasses.dataclass(frozen=True)
class Answer:
    """A captioner's answer to one view, before cleaning. Token counts are None if they are unknown."""

    text: str
    finish_reason: str  # "stop", "length", or any other value of the server
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    flags: tuple[str, ...] = ()


BUILT_IN = {
    view.name: view
    for view in (
        View("short", "Describe this {media} in one plain sentence of at most twenty words.", 48),
        View(
            "detail",
            "Describe this {media} in detail, in four to six plain sentences: what is in it, where each thing is, "
            "what happens, and the surroundings. State only what can be seen.",
            256,
        ),
        View(
            "objects",
            "Name every object, person and animal that can be seen in this {media}, with its number, as one "
            "comma-separated sentence. Name nothing that is not there.",
            128,
        ),
        View(
            "attributes",
            "In two or three plain sentences, describe the colours, sizes, materials, clothing and other visible "
            "properties of the main things in this {media}.",
            128,
        ),
        View(
            "actions",
            "In one or two plain sentences, say what the people, animals or things in this {media} are doing and how "
            "they relate to one another. If nothing happens, say what state they are in.",
            128,
        ),
    )
}
DEFAULT_VIEWS = ",".join(BUILT_IN)


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
            hint = _nearest(name, known) or f"the views are {', '.join(known)}, or a .yaml file"
            raise UsageError(f"--views: there is no view {name!r}: {hint}")
    if not chosen:
        raise UsageError("--views: expected at least one view, for example --views short,detail")
    return tuple(chosen.values())


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    return f"did you mean {near[0]}?" if near else ""


def _read_views(path: Path) -> dict[str, View]:
    loaded = read_yaml(path, "--views", "views, such as `name: {prompt: …, max_tokens: …, temperature: …}`")
    return {name: _view(path, name, fields) for name, fields in loaded.items()}


def _view(path: Path, name: object, fields: object) -> View:
    known = {field.name for field in dataclasses.fields(View)} - {"name"}
    if not isinstance(name, str) or not name.replace("_", "").replace("-", "").isalnum():
        raise UsageError(f"--views: {path}: the view name {name!r} must consist of letters, digits, - and _")
    if not isinstance(fields, dict) or not isinstance(fields.get("prompt"), str) or not fields["prompt"].strip():
        raise UsageError(f"--views: {path}: view {name} has no prompt: add `prompt: text`")
    for key in map(str, fields):
        if key not in known:
            hint = _nearest(key, known) or f"expected {', '.join(sorted(known))}"
            raise UsageError(f"--views: {path}: view {name} has the unknown key {key!r}: {hint}")
    view = View(name, **fields)
    if type(view.max_tokens) is not int or view.max_tokens < 1:
        raise UsageError(f"--views: {path}: view {name}: max_tokens is {view.max_tokens!r}, not a whole number above 0")
    if type(view.temperature) not in (int, float) or not 0 <= view.temperature <= 2:
        raise UsageError(f"--views: {path}: view {name}: temperature is {view.temperature!r}, not a number from 0 to 2")
    return view

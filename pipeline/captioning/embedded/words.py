"""The embedded describer's English: from what was measured in a picture to sentences, one writer a view.

A writer returns (text, unsure): unsure is True where the text guesses. Every writer hedges by the same three bands.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from pipeline.captioning.embedded.colours import accent_colours, dominant_colours, is_colourless, light_word, motion

WORDING = 1  # part of the revision: raised when the sentences change, so that cached ones are not mixed with new ones
SURE, LIKELY, POSSIBLE = 0.6, 0.3, 0.12  # probabilities: said flatly, said with "probably", named among others
CLOTHING = "clothing"
FAINT = 0.05  # least probability of what a guess lists beside its first


@dataclasses.dataclass(frozen=True)
class Thing:
    """A group of classes found in the picture: its names by probability, where it is, and the cells that show it."""

    group: str  # "a cat", or CLOTHING
    names: tuple[str, ...]  # classes of the group that matter, likeliest first
    certain_name: float  # share of the group's probability that the first name holds
    probability: float
    x: float  # centre of the cells that show it, 0..1 from the left
    y: float
    colours: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Sight:
    """All that was measured in one image or video; the wording needs nothing else."""

    medium: str  # "picture" or "video"
    things: tuple[Thing, ...]  # likeliest first: of the whole picture
    parts: tuple[Thing, ...]  # others that are likely in some part of it
    actions: tuple[tuple[str, float], ...]
    first_last: tuple[str, str] | None  # groups a video begins and ends with, where they differ
    lab: np.ndarray  # (T, rows, columns, 3), a small copy of each frame
    colours: np.ndarray  # (T, rows, columns), indices into embedded_colours.COLOURS
    width: int
    height: int


def _listed(parts: Sequence[str], joint: str) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} {joint} {parts[-1]}"


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _noun(phrase: str) -> str:
    """The phrase without its article."""
    return phrase.removeprefix("a ").removeprefix("an ").removeprefix("the ")


def _plain_name(thing: Thing) -> str:
    """One noun phrase for a thing: its class where that is clear, with the everyday word unless the class holds it."""
    if thing.group == CLOTHING:
        return f"a person wearing {thing.names[0]}"
    if thing.certain_name < 0.5:
        return thing.group
    name = thing.names[0]
    return name if set(_noun(thing.group).split()) <= set(name.split()) else f"{name} ({_noun(thing.group)})"


def _full_name(thing: Thing) -> str:
    """The noun phrase with the classes it may be: "a cat (perhaps a tabby cat or a Persian cat)"."""
    if thing.group == CLOTHING and thing.certain_name < 0.8:
        return f"a person wearing {_listed(thing.names[:2], 'or')}"
    if thing.group == CLOTHING or thing.certain_name >= 0.8:
        return _plain_name(thing)
    hedge = "probably" if thing.probability >= SURE else "perhaps"
    if thing.certain_name >= 0.5:
        return thing.group if thing.names[0] == thing.group else f"{thing.group} ({hedge} {thing.names[0]})"
    others = [name for name in thing.names if name != thing.group]
    return f"{thing.group} (perhaps {_listed(others, 'or')})"


def _place(thing: Thing) -> str:
    across = "left" if thing.x < 0.36 else "right" if thing.x > 0.64 else ""
    down = "upper" if thing.y < 0.34 else "lower" if thing.y > 0.66 else ""
    if across and down:
        return f"in the {down} {across}"
    if across:
        return f"on the {across}"
    return {"upper": "at the top", "lower": "at the bottom", "": "in the centre"}[down]


def _subject(sight: Sight, place: bool) -> tuple[str, bool]:
    """The main sentence without its full stop, and whether it guesses."""
    if not sight.things or sight.things[0].probability < POSSIBLE:
        return f"it is unclear what the {sight.medium} shows", True
    first = sight.things[0]
    where = f" {_place(first)}" if place else ""
    worn = first.group == CLOTHING  # no class says "person": what is worn tells only that somebody may be there
    if first.probability >= SURE:
        return f"{'perhaps ' if worn else ''}{_full_name(first)}{where}", worn
    if first.probability >= LIKELY:
        return f"{'perhaps' if worn else 'probably'} {_full_name(first)}{where}", worn
    near = [_plain_name(thing) for thing in sight.things if thing.probability >= max(FAINT, first.probability / 3)][:3]
    return f"it may be {_listed(near, 'or')}", True


def _also(sight: Sight) -> list[Thing]:
    """Things beside the main one that are likely in the whole or in a part, likeliest first."""
    if not sight.things or sight.things[0].probability < POSSIBLE:
        return list(sight.parts)
    named = {thing.group for thing in sight.parts} | {sight.things[0].group}
    return [*sight.parts, *(thing for thing in sight.things if thing.group not in named and thing.probability >= FAINT)]


def _format(sight: Sight) -> str:
    ratio = sight.width / sight.height
    shape = "landscape" if ratio > 1.1 else "portrait" if ratio < 0.9 else "square"
    words = [word for word in (light_word(sight.lab), "black-and-white" if is_colourless(sight.lab) else "") if word]
    return f"it is a {' '.join([', '.join(words), sight.medium]).strip()} in {shape} format"


def _colours(sight: Sight) -> str:
    widest, accents = dominant_colours(sight.colours), accent_colours(sight.colours)
    some = f", with some {_listed(accents, 'and')}" if accents else ""
    return f"the {sight.medium} is mainly {_listed(widest, 'and')}{some}"


def _bands(sight: Sight) -> str:
    """What tells the upper from the lower part, "" where nothing does."""
    third = sight.colours.shape[1] // 3
    upper, lower = (dominant_colours(part, most=2) for part in (sight.colours[:, :third], sight.colours[:, -third:]))
    if set(upper) & set(lower):
        return ""
    return f"the upper part is {_listed(upper, 'and')}, the lower part {_listed(lower, 'and')}"


def _short(sight: Sight) -> tuple[str, bool]:
    subject, unsure = _subject(sight, place=False)
    if is_colourless(sight.lab):
        return _sentence(f"{subject}, in black and white"), unsure
    return _sentence(f"{subject}; {_colours(sight)}" if unsure else subject), unsure


def _detail(sight: Sight) -> tuple[str, bool]:
    subject, unsure = _subject(sight, place=True)
    sentences = [subject]
    shown = 3 if unsure and subject.startswith("it may") else 1
    listed = {thing.group for thing in sight.things[:shown]}
    also = [thing for thing in _also(sight) if thing.group not in listed and thing.probability >= POSSIBLE][:3]
    if also:
        also_word = "" if subject.startswith("it is unclear") else "also "
        places = [f"{_plain_name(thing)} {_place(thing)}" for thing in also]
        sentences.append(f"there may {also_word}be {_listed(places, 'and')}")
    sentences += [_format(sight), _colours(sight)]
    if _bands(sight):
        sentences.append(_bands(sight))
    if sight.first_last:
        sentences.append(_change(sight.first_last))
    if len(sight.lab) > 1:
        sentences.append(_motion(sight))
    return " ".join(map(_sentence, sentences)), unsure


def _objects(sight: Sight) -> tuple[str, bool]:
    if not sight.things or (sight.things[0].probability < POSSIBLE and not sight.parts):
        return _sentence(f"nothing in the {sight.medium} can be named with confidence"), True
    first = sight.things[0]
    sure = first.probability >= LIKELY and first.group != CLOTHING
    others = [_plain_name(thing) for thing in _also(sight)[:5]]
    if sure:
        name = _full_name(first) if first.probability >= SURE else f"probably {_full_name(first)}"
        return _sentence(", perhaps ".join([name, *others])), False
    head = [_plain_name(first)] if first.probability >= POSSIBLE else []
    return _sentence(f"perhaps {_listed([*head, *others], 'or')}"), True


def _attributes(sight: Sight) -> tuple[str, bool]:
    sentences = []
    if sight.things and sight.things[0].probability >= LIKELY:
        first = sight.things[0]
        what = "the person" if first.group == CLOTHING else f"the {_noun(first.group)}"
        sentences.append(f"where {what} seems to be, the colours are mainly {_listed(first.colours, 'and')}")
    sentences.append(_colours(sight))
    if _bands(sight):
        sentences.append(_bands(sight))
    sentences.append(_format(sight))
    return " ".join(map(_sentence, sentences)), False


def _actions(sight: Sight) -> tuple[str, bool]:
    guesses = [action for action, _ in sight.actions[:2]]
    guess = f"someone may be {_listed(guesses, 'or')}" if guesses else ""
    if len(sight.lab) > 1:
        sentences = [_motion(sight)]
        if sight.first_last:
            sentences.append(_change(sight.first_last))
        return " ".join(map(_sentence, sentences + ([guess] if guess else []))), bool(guess)
    if guess:
        return _sentence(guess), True
    if sight.medium == "video":
        return "Only one frame was seen, so no motion can be told.", True
    if sight.things and sight.things[0].probability >= LIKELY:
        first = sight.things[0]
        shows = "may show" if first.group == CLOTHING else "shows" if first.probability >= SURE else "probably shows"
        where = f"{_full_name(first)} {_place(first)}"
        return _sentence(f"the picture is still: it {shows} {where}, and nothing tells an action"), True
    return "The picture is still; nothing in it tells an action.", True


def _change(first_last: tuple[str, str]) -> str:
    first, last = ("a person" if group == CLOTHING else group for group in first_last)
    return f"it seems to begin with {first} and to end with {last}"


def _motion(sight: Sight) -> str:
    share, x, y = motion(sight.lab)
    if share < 0.01:
        return "hardly anything moves between the frames"
    if share > 0.4:
        return "much of the picture changes between the frames"
    across = "on the left" if x < 0.4 else "on the right" if x > 0.6 else "at the top" if y < 0.35 else ""
    where = across or ("at the bottom" if y > 0.65 else "around the centre")
    return f"{'little moves' if share < 0.1 else 'part of the picture moves'} between the frames, mostly {where}"


WRITERS: dict[str, Callable[[Sight], tuple[str, bool]]] = {
    "short": _short,
    "detail": _detail,
    "objects": _objects,
    "attributes": _attributes,
    "actions": _actions,
}

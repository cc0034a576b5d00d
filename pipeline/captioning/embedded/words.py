"""Sentences of the embedded describer: from likely classes and their places to plain English, one writer per view.

A writer returns (text, unsure); unsure is True where the text is a guess. Probabilities decide the wording: from SURE
on a thing is named flatly, from LIKELY with "probably", from POSSIBLE as one of several guesses.
"""

import dataclasses
from collections.abc import Sequence

WORDING = 2  # part of the revision: raised when sentences change, so that old and new ones are not mixed
SURE, LIKELY, POSSIBLE, FAINT = 0.6, 0.3, 0.12, 0.03
CLOTHING = "clothing"


@dataclasses.dataclass(frozen=True)
class Thing:
    """An everyday group of classes, its likely members, and where in the picture they were recognised."""

    group: str  # "a cat", or CLOTHING
    names: tuple[str, ...]  # likely classes of the group, likeliest first
    probability: float
    x: float  # 0 to 1 from the left
    y: float  # 0 to 1 from the top

    @property
    def name(self) -> str:
        """A noun phrase: the class if only one is likely, else the group."""
        if self.group == CLOTHING:
            return f"a person wearing {join(self.names, 'or')}"
        if len(self.names) > 1:
            return self.group
        noun = self.group.removeprefix("a ").removeprefix("an ")
        is_known = set(noun.split()) <= set(self.names[0].split())
        return self.names[0] if is_known else f"{self.names[0]} ({noun})"

    @property
    def place(self) -> str:
        """Where it is, in words."""
        across = "left" if self.x < 0.36 else "right" if self.x > 0.64 else ""
        down = "upper" if self.y < 0.34 else "lower" if self.y > 0.66 else ""
        if across:
            return f"in the {down} {across}" if down else f"on the {across}"
        return {"upper": "at the top", "lower": "at the bottom", "": "in the centre"}[down]


@dataclasses.dataclass(frozen=True)
class Scene:
    """What was recognised in one image or video."""

    medium: str  # "picture" or "video"
    look: str  # "it is a dark picture in landscape format"
    things: tuple[Thing, ...] = ()  # in the whole picture, likeliest first; empty if nothing is likely enough
    parts: tuple[Thing, ...] = ()  # things that are likely in one part
    actions: tuple[str, ...] = ()
    change: tuple[str, str] | None = None  # groups that a video begins and ends with, if they differ

    @property
    def named(self) -> tuple[Thing, ...]:
        """The things that the main clause names: one, or up to three if none is likely."""
        if not self.things or self.things[0].probability >= LIKELY:
            return self.things[:1]
        return tuple(thing for thing in self.things if thing.probability >= self.things[0].probability / 3)[:3]

    @property
    def others(self) -> list[Thing]:
        """All other things, likeliest first."""
        things = {thing.group: thing for thing in (*self.things, *self.parts)}
        groups = {thing.group for thing in self.named}
        return sorted((t for t in things.values() if t.group not in groups), key=lambda thing: -thing.probability)


def join(parts: Sequence[str], word: str) -> str:
    """The parts as "a, b and c", with the given word before the last one."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} {word} {parts[-1]}"


def _sentences(*clauses: str) -> str:
    return " ".join(f"{clause[0].upper()}{clause[1:]}." for clause in clauses if clause)


def _subject(scene: Scene, place: bool = False) -> tuple[str, bool]:
    """The main clause, and whether it is a guess."""
    if not scene.things:
        return f"it is unclear what the {scene.medium} shows", True
    main = scene.things[0]
    if main.probability < LIKELY:
        return f"it may be {join([thing.name for thing in scene.named], 'or')}", True
    # No class means "person": clothing only suggests that somebody wears it.
    guess = main.group == CLOTHING
    hedge = "perhaps " if guess else "" if main.probability >= SURE else "probably "
    classes = f" (perhaps {join(main.names, 'or')})" if main.name == main.group != main.names[0] else ""
    return f"{hedge}{main.name}{classes}{f' {main.place}' if place else ''}", guess


def _change(scene: Scene) -> str:
    if not scene.change:
        return ""
    first, last = ("a person" if group == CLOTHING else group for group in scene.change)
    return f"it seems to begin with {first} and to end with {last}"


def _short(scene: Scene) -> tuple[str, bool]:
    subject, unsure = _subject(scene)
    return _sentences(f"{subject}, in black and white" if "black-and-white" in scene.look else subject), unsure


def _detail(scene: Scene) -> tuple[str, bool]:
    subject, unsure = _subject(scene, place=True)
    others = [f"{thing.name} {thing.place}" for thing in scene.others if thing.probability >= POSSIBLE][:3]
    more = f"there may {'also ' if scene.things else ''}be {join(others, 'and')}" if others else ""
    return _sentences(subject, more, scene.look, _change(scene)), unsure


def _objects(scene: Scene) -> tuple[str, bool]:
    subject, unsure = _subject(scene)
    others = [thing.name for thing in scene.others[:5]]
    if not unsure:
        return _sentences(", perhaps ".join([subject, *others])), False
    if guesses := [*(thing.name for thing in scene.named), *others]:
        return _sentences(f"perhaps {join(guesses, 'or')}"), True
    return f"Nothing in the {scene.medium} can be named with confidence.", True


def _attributes(scene: Scene) -> tuple[str, bool]:
    subject, unsure = _subject(scene, place=True)
    return _sentences(scene.look, subject), unsure


def _actions(scene: Scene) -> tuple[str, bool]:
    guess = f"someone may be {join(scene.actions, 'or')}" if scene.actions else ""
    if guess or scene.change:
        return _sentences(_change(scene), guess), True
    return f"No action is recognised in the {scene.medium}.", True


WRITERS = {"short": _short, "detail": _detail, "objects": _objects, "attributes": _attributes, "actions": _actions}

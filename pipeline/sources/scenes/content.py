"""What a scene holds, and what a caption says of it before it is put into words.

A scene is one or two groups of equal objects in front of a background. In a picture they lie somewhere, in a clip one
group moves.
"""

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import yaml

FACTS = yaml.safe_load(Path(__file__).with_name("facts.yaml").read_text(encoding="utf-8"))
KINDS, COLOURS, BACKGROUNDS = (tuple[str, ...](FACTS[name]) for name in ("kinds", "colours", "backgrounds"))
SIZES = ("small", "large")
COUNTS = (1, 2, 3, 4)
PAIR_COUNTS = COUNTS[:3]  # sizes of either group if two share the picture
OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}
RELATIONS = tuple(OPPOSITE)  # where the group named first is, seen from the second
BESIDE = "beside"  # what a caption may say for left or right
PLACES = ("left", "middle", "right")  # where a single group can be
MOTIONS = ("left", "right", "up", "down")
CHANGES = ("kind", "colour", "count", "background", "mirror", "trade")
PAIRS, SIBLINGS = 0.75, 0.5  # share of scenes with two groups; share that differs from another scene in one fact
FORMS: dict[str, list[str]] = FACTS["forms"]  # caption form → the facts it states in addition to the groups

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Group:
    """`count` objects of one kind, colour and size."""

    kind: str
    colour: str
    size: str
    count: int


@dataclasses.dataclass(frozen=True)
class Scene:
    """Of two groups the first lies `relation` ("left" or "above") of the second; a single group lies at `place`.

    In a clip the group number `mover` moves towards `motion`: a single group anywhere, one of two sideways above or
    below the other.
    """

    background: str
    groups: tuple[Group, ...]
    relation: str = ""
    place: str = ""
    motion: str = ""
    mover: int = 0

    def position(self, number: int) -> str:
        """Where group `number` lies in the picture; "moving" for one that moves all over it."""
        if not self.relation:
            return self.place or "moving"
        return self.relation if number == 0 else OPPOSITE[self.relation]


@dataclasses.dataclass(frozen=True)
class Message:
    """What a caption says. `relation` is that of the first group to the second; facts that are not stated are empty."""

    form: str
    groups: tuple[Group, ...]  # in the order in which they are named
    sized: bool = False  # whether sizes are named
    background: str = ""
    relation: str = ""
    place: str = ""
    motion: str = ""


def generator(*parts: str | int) -> np.random.Generator:
    """Random numbers that depend only on the parts."""
    digest = hashlib.sha256("\0".join(map(str, parts)).encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))


class Sampler:
    """Draws scenes, no two of them the same, whatever split they are for. `videos` is the share of clips."""

    def __init__(self, rng: np.random.Generator, videos: float):
        self._rng, self._videos = rng, videos
        self._drawn: set[Scene] = set()

    def scenes(self, count: int) -> list[Scene]:
        """`count` scenes for one split.

        Half of them are siblings: the last new scene with one fact changed, so that telling scenes apart takes colours,
        counts and relations, and not just kinds.
        """
        scenes: list[Scene] = []
        original: Scene | None = None
        while len(scenes) < count:
            sibling = original if self._rng.random() < SIBLINGS else None
            scene = changed(sibling, self._rng) if sibling else self._new_scene()
            if scene not in self._drawn:
                self._drawn.add(scene)
                scenes.append(scene)
                original = sibling or scene
        return scenes

    def _new_scene(self) -> Scene:
        rng = self._rng
        background, moving = _pick(rng, BACKGROUNDS), rng.random() < self._videos
        if rng.random() >= PAIRS:
            single = (_draw_group(rng, _pick(rng, KINDS), COUNTS),)
            if moving:
                return Scene(background, single, motion=_pick(rng, MOTIONS))
            return Scene(background, single, place=_pick(rng, PLACES))
        kind = _pick(rng, KINDS)
        kinds = (kind, _pick_other(rng, KINDS, kind))
        groups = [_draw_group(rng, kind, PAIR_COUNTS) for kind in kinds]
        if not moving:
            return Scene(background, tuple(groups), _pick(rng, ("left", "above")))
        mover = int(rng.integers(2))
        groups[mover] = dataclasses.replace(groups[mover], count=min(groups[mover].count, 2))
        return Scene(background, tuple(groups), "above", motion=_pick(rng, MOTIONS[:2]), mover=mover)


def changed(scene: Scene, rng: np.random.Generator) -> Scene:
    """The scene with one fact changed."""
    change = _pick(rng, CHANGES)
    groups = list(scene.groups)
    if change == "background":
        return dataclasses.replace(scene, background=_pick_other(rng, BACKGROUNDS, scene.background))
    if change == "mirror":
        if len(groups) == 2:
            mover = 1 - scene.mover if scene.motion else 0  # a still scene has no mover
            return dataclasses.replace(scene, groups=tuple(reversed(groups)), mover=mover)
        if scene.motion:
            return dataclasses.replace(scene, motion=_pick_other(rng, MOTIONS, scene.motion))
        return dataclasses.replace(scene, place=_pick_other(rng, PLACES, scene.place))
    if change == "trade" and len(groups) == 2:
        colours = [group.colour for group in reversed(groups)]
        traded = [dataclasses.replace(group, colour=colour) for group, colour in zip(groups, colours, strict=True)]
        return dataclasses.replace(scene, groups=tuple(traded))
    at = int(rng.integers(len(groups)))
    group = groups[at]
    if change == "kind":
        free = [kind for kind in KINDS if kind not in {group.kind for group in groups}]
        groups[at] = dataclasses.replace(group, kind=_pick(rng, free))
    elif change == "count":
        counts: tuple[int, ...] = PAIR_COUNTS if scene.relation else COUNTS
        if scene.motion and scene.relation and at == scene.mover:
            counts = PAIR_COUNTS[:2]  # what moves past another group needs room
        groups[at] = dataclasses.replace(group, count=_pick_other(rng, counts, group.count))
    else:
        groups[at] = dataclasses.replace(group, colour=_pick_other(rng, COLOURS, group.colour))
    return dataclasses.replace(scene, groups=tuple(groups))


def draw_messages(scene: Scene, rng: np.random.Generator, count: int) -> list[Message]:
    """`count` messages (at most 3) of different forms, each true of the scene."""
    first, *rest = forms_of(scene)
    # One of the two forms that state the relation is always there.
    if len(scene.groups) == 2 and not scene.motion and rng.random() >= 0.5:
        first, rest = rest[0], [first, *rest[1:]]
    chosen = [first, *(rest[at] for at in rng.permutation(len(rest))[: count - 1])]
    return [message(scene, form, sized=bool(rng.random() < 0.5), turned=bool(rng.random() < 0.5)) for form in chosen]


def forms_of(scene: Scene) -> tuple[str, ...]:
    """The forms that captions of a scene may have."""
    if scene.motion:
        return ("passing" if scene.relation else "moving", "moving_there", "listed")
    if scene.relation:
        return ("related", "related_there", "listed", "shown", *(["beside"] if scene.relation == "left" else []))
    return ("placed", "there", "listed", "shown")


def message(scene: Scene, form: str, *, sized: bool, turned: bool) -> Message:
    """A message of this form. If `turned`, the second of two groups is named first, and the relation is its own."""
    turned = scene.mover == 1 if scene.motion else turned and len(scene.groups) == 2
    groups = tuple(reversed(scene.groups)) if turned else scene.groups
    relation = OPPOSITE[scene.relation] if turned else scene.relation
    facts = {
        "background": scene.background,
        "relation": BESIDE if form == "beside" else relation,
        "place": scene.place,
        "motion": scene.motion,
    }
    stated = {name: facts[name] for name in FORMS[form]}
    return Message(form, groups[:1] if form in ("moving", "moving_there") else groups, sized, **stated)


def mistaken(message: Message, rng: np.random.Generator, rate: float) -> Message:
    """The message with each of its facts replaced by a wrong one with probability `rate`."""

    def mistake(options: Sequence[T], fact: T) -> T:
        return _pick_other(rng, options, fact) if fact and rng.random() < rate else fact

    groups = []
    for group in message.groups:
        kind, colour = mistake(KINDS, group.kind), mistake(COLOURS, group.colour)
        count = mistake(COUNTS, group.count)
        size = mistake(SIZES, group.size) if message.sized else group.size
        groups.append(Group(kind, colour, size, count))
    background = mistake(BACKGROUNDS, message.background)
    # What is left or right of something is also beside it.
    relation = mistake(RELATIONS[2:] if message.relation == BESIDE else RELATIONS, message.relation)
    if message.motion and relation != message.relation:
        relation = OPPOSITE[message.relation]  # what moves past something moves above or below it
    place = mistake(PLACES, message.place)
    motion = mistake(MOTIONS if len(groups) == 1 else MOTIONS[:2], message.motion)
    return Message(message.form, tuple(groups), message.sized, background, relation, place, motion)


def _pick(rng: np.random.Generator, options: Sequence[T]) -> T:
    return options[int(rng.integers(len(options)))]


def _pick_other(rng: np.random.Generator, options: Sequence[T], than: T) -> T:
    return _pick(rng, [option for option in options if option != than])


def _draw_group(rng: np.random.Generator, kind: str, counts: Sequence[int]) -> Group:
    return Group(kind, _pick(rng, COLOURS), _pick(rng, SIZES), _pick(rng, counts))

"""What a scene holds: one or two groups of equal objects before a background; where they are, or where they move."""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np

KINDS = (
    "house",
    "tree",
    "car",
    "ball",
    "star",
    "cup",
    "boat",
    "fish",
    "flower",
    "umbrella",
    "bird",
    "apple",
    "mushroom",
    "hat",
)
COLOURS = ("red", "blue", "green", "yellow", "orange", "purple", "white", "black")
SIZES = ("small", "large")
COUNTS = (1, 2, 3, 4)
PAIR_COUNTS = COUNTS[:3]  # of each of two groups: a half of the picture is theirs
BACKGROUNDS = ("meadow", "beach", "night", "snow", "street", "desert", "water")
OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}
RELATIONS = tuple(OPPOSITE)  # of the group named first to the second
PLACES = ("left", "middle", "right")  # of a single group, in the picture
MOTIONS = ("left", "right", "up", "down")
CHANGES = ("kind", "colour", "count", "background", "mirror", "trade")
PAIRS, SIBLINGS = 0.75, 0.5  # share of scenes with two groups; of those that differ from another one in one fact

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
    """Of two groups the first lies `relation` ("left" or "above") of the second; a single one lies at `place`.

    In a clip the group `mover` moves towards `motion`: a single one anywhere, one of two sideways above or below the
    other.
    """

    background: str
    groups: tuple[Group, ...]
    relation: str = ""
    place: str = ""
    motion: str = ""
    mover: int = 0

    def truth(self) -> dict[str, Any]:
        """For JSON: everything that can be seen."""
        told: dict[str, Any] = {"background": self.background, "objects": []}
        for number, group in enumerate(self.groups):
            motion = self.motion if number == self.mover else ""
            told["objects"].append({**dataclasses.asdict(group), "position": self.position(number), "motion": motion})
        told["relations"] = [[0, self.relation, 1], [1, OPPOSITE[self.relation], 0]] if self.relation else []
        return told

    def position(self, number: int) -> str:
        """Where group `number` lies in the picture; of one that moves all over it, "moving"."""
        if not self.relation:
            return self.place or "moving"
        return self.relation if number == 0 else OPPOSITE[self.relation]


def generator(*parts: str | int) -> np.random.Generator:
    """Random numbers that depend on the parts alone."""
    digest = hashlib.sha256("\0".join(map(str, parts)).encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))


def pick(rng: np.random.Generator, options: Sequence[T]) -> T:
    return options[int(rng.integers(len(options)))]


def other(rng: np.random.Generator, options: Sequence[T], than: T) -> T:
    return pick(rng, [option for option in options if option != than])


class Sampler:
    """Draws scenes of which no two are the same, whatever split they are for."""

    def __init__(self, rng: np.random.Generator, videos: float):
        self._rng, self._videos = rng, videos
        self._taken: set[Scene] = set()

    def scenes(self, count: int) -> list[Scene]:
        """`count` scenes for one split. Half of them are siblings: the last new scene with one fact changed, so that
        what is told apart are colours, counts and relations, and not just kinds."""
        found: list[Scene] = []
        original: Scene | None = None
        while len(found) < count:
            sibling = original if self._rng.random() < SIBLINGS else None
            scene = changed(sibling, self._rng) if sibling else self._anew()
            if scene not in self._taken:
                self._taken.add(scene)
                found.append(scene)
                original = sibling or scene
        return found

    def _anew(self) -> Scene:
        rng = self._rng
        background, moving = pick(rng, BACKGROUNDS), rng.random() < self._videos
        if rng.random() >= PAIRS:
            alone = (_group(rng, pick(rng, KINDS), COUNTS),)
            if moving:
                return Scene(background, alone, motion=pick(rng, MOTIONS))
            return Scene(background, alone, place=pick(rng, PLACES))
        first = pick(rng, KINDS)
        groups = tuple(_group(rng, kind, PAIR_COUNTS) for kind in (first, other(rng, KINDS, first)))
        if moving:
            mover = int(rng.integers(2))
            groups = tuple(
                dataclasses.replace(group, count=min(group.count, 2)) if at == mover else group
                for at, group in enumerate(groups)
            )
            return Scene(background, groups, "above", motion=pick(rng, MOTIONS[:2]), mover=mover)
        return Scene(background, groups, pick(rng, ("left", "above")))


def _group(rng: np.random.Generator, kind: str, counts: Sequence[int]) -> Group:
    return Group(kind, pick(rng, COLOURS), pick(rng, SIZES), pick(rng, counts))


def _counts(scene: Scene, number: int) -> tuple[int, ...]:
    """How many there may be in a group: what moves past another one needs room."""
    if not scene.relation:
        return COUNTS
    return PAIR_COUNTS[:2] if scene.motion and number == scene.mover else PAIR_COUNTS


def changed(scene: Scene, rng: np.random.Generator) -> Scene:
    """The scene with one fact changed."""
    change = pick(rng, CHANGES)
    groups = list(scene.groups)
    if change == "background":
        return dataclasses.replace(scene, background=other(rng, BACKGROUNDS, scene.background))
    if change == "mirror":
        if len(groups) == 2:
            mover = 1 - scene.mover if scene.motion else 0  # a still scene has one spelling
            return dataclasses.replace(scene, groups=tuple(reversed(groups)), mover=mover)
        if scene.motion:
            return dataclasses.replace(scene, motion=other(rng, MOTIONS, scene.motion))
        return dataclasses.replace(scene, place=other(rng, PLACES, scene.place))
    if change == "trade" and len(groups) == 2:
        one, two = groups
        groups = [dataclasses.replace(one, colour=two.colour), dataclasses.replace(two, colour=one.colour)]
        return dataclasses.replace(scene, groups=tuple(groups))
    at = int(rng.integers(len(groups)))
    group = groups[at]
    if change == "kind":
        free = [kind for kind in KINDS if kind not in {group.kind for group in groups}]
        groups[at] = dataclasses.replace(group, kind=pick(rng, free))
    elif change == "count":
        groups[at] = dataclasses.replace(group, count=other(rng, _counts(scene, at), group.count))
    else:
        groups[at] = dataclasses.replace(group, colour=other(rng, COLOURS, group.colour))
    return dataclasses.replace(scene, groups=tuple(groups))

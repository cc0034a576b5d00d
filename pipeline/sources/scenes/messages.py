"""What a caption says of a scene, before it is put into the words of a language."""

import dataclasses

import numpy as np

from pipeline.sources.scenes.content import (
    BACKGROUNDS,
    COLOURS,
    COUNTS,
    KINDS,
    MOTIONS,
    OPPOSITE,
    PLACES,
    RELATIONS,
    SIZES,
    Group,
    Scene,
    other,
)

BESIDE = "beside"  # what a caption may say for left or right
FORMS = {
    "related": "two red cars are to the left of a blue ball",
    "related_there": "on a beach, two red cars are to the left of a blue ball",
    "beside": "two red cars are next to a blue ball",
    "listed": "two red cars (and a blue ball) on a beach",
    "shown": "the picture shows two red cars (and a blue ball)",
    "placed": "two red cars on the left side of the picture",
    "there": "there are two red cars on a beach",
    "moving": "two red cars are moving to the left",
    "moving_there": "on a beach, two red cars are moving to the left",
    "passing": "two red cars are moving to the left above a blue ball",
}


@dataclasses.dataclass(frozen=True)
class Message:
    """`groups` in the order of their mention; `relation` is of the first to the second. What a form does not say is
    empty."""

    form: str
    groups: tuple[Group, ...]
    sized: bool = False  # sizes are said too
    background: str = ""
    relation: str = ""
    place: str = ""
    motion: str = ""


def messages(scene: Scene, rng: np.random.Generator, count: int) -> list[Message]:
    """`count` messages (at most 3) of different forms, each true of the scene."""
    forms = forms_of(scene)
    first, rest = forms[0], list(forms[1:])
    if len(scene.groups) == 2 and not scene.motion:  # one of the two that tell the relation is always there
        first, rest = (forms[0], list(forms[1:])) if rng.random() < 0.5 else (forms[1], [forms[0], *forms[2:]])
    chosen = [first, *(rest[at] for at in rng.permutation(len(rest))[: count - 1])]
    return [message(scene, form, sized=bool(rng.random() < 0.5), turned=bool(rng.random() < 0.5)) for form in chosen]


def forms_of(scene: Scene) -> tuple[str, ...]:
    if scene.motion:
        return ("passing" if scene.relation else "moving", "moving_there", "listed")
    if scene.relation:
        return ("related", "related_there", "listed", "shown", *(["beside"] if scene.relation == "left" else []))
    return ("placed", "there", "listed", "shown")


def message(scene: Scene, form: str, *, sized: bool, turned: bool) -> Message:
    """A message of this form; `turned`: of two groups the second is named first, and the relation from its side."""
    turned = scene.mover == 1 if scene.motion else turned and len(scene.groups) == 2
    groups = tuple(reversed(scene.groups)) if turned else scene.groups
    relation = OPPOSITE[scene.relation] if turned else scene.relation
    if form in ("related", "related_there"):
        background = scene.background if form == "related_there" else ""
        return Message(form, groups, sized, background, relation)
    if form == "beside":
        return Message(form, groups, sized, relation=BESIDE)
    if form == "listed":
        return Message(form, groups, sized, scene.background)
    if form == "shown":
        return Message(form, groups, sized)
    if form == "placed":
        return Message(form, groups, sized, place=scene.place)
    if form == "there":
        return Message(form, groups, sized, scene.background)
    if form == "moving":
        return Message(form, groups[:1], sized, motion=scene.motion)
    if form == "moving_there":
        return Message(form, groups[:1], sized, scene.background, motion=scene.motion)
    return Message(form, groups, sized, relation=relation, motion=scene.motion)


def mistaken(said: Message, rng: np.random.Generator, rate: float) -> Message:
    """The message with each of its facts replaced by a wrong one, with probability `rate`."""

    def wrong() -> bool:
        return bool(rng.random() < rate)

    groups = []
    for group in said.groups:
        kind = other(rng, KINDS, group.kind) if wrong() else group.kind
        colour = other(rng, COLOURS, group.colour) if wrong() else group.colour
        count = other(rng, COUNTS, group.count) if wrong() else group.count
        size = other(rng, SIZES, group.size) if said.sized and wrong() else group.size
        groups.append(Group(kind, colour, size, count))
    background = other(rng, BACKGROUNDS, said.background) if said.background and wrong() else said.background
    wrong_ones = RELATIONS[2:] if said.relation == BESIDE else RELATIONS  # left and right of it are beside it
    relation = other(rng, wrong_ones, said.relation) if said.relation and wrong() else said.relation
    if said.motion and relation != said.relation:
        relation = OPPOSITE[said.relation]  # what moves past moves above or below
    place = other(rng, PLACES, said.place) if said.place and wrong() else said.place
    motions = MOTIONS if len(said.groups) == 1 else MOTIONS[:2]
    motion = other(rng, motions, said.motion) if said.motion and wrong() else said.motion
    return Message(said.form, tuple(groups), said.sized, background, relation, place, motion)

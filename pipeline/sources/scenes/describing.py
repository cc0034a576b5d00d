"""What a simulated captioner says of a scene, in English, a text a view; a share of its facts is wrong."""

from pipeline.captioning.prompts import BUILT_IN
from pipeline.sources.scenes import english
from pipeline.sources.scenes.content import Group, Scene, generator
from pipeline.sources.scenes.languages import SOURCE, caption
from pipeline.sources.scenes.messages import Message, mistaken

CAPTIONER = "scenes:simulated"
VIEWS = tuple(BUILT_IN)
COUNTS = {1: "one", **english.NUMBERS}
AROUND = {
    "meadow": "a green meadow",
    "beach": "a beach by the sea",
    "night": "the night sky",
    "snow": "a snowy field",
    "street": "a street",
    "desert": "a sandy desert",
    "water": "the open water",
}


def descriptions(scene: Scene, errors: float, seed: int, item_id: str) -> dict[str, str]:
    """By view, its text. Each fact of each view is wrong with probability `errors`, independently: a colour, a size, a
    number, a kind, a relation, a place, a background, a direction."""
    facts = Message("", scene.groups, True, scene.background, scene.relation, scene.place, scene.motion)
    told = {}
    for view in VIEWS:
        seen = mistaken(facts, generator(seed, item_id, view), errors) if errors > 0 else facts
        told[view] = _TELLING[view](seen, scene.mover)
    return told


def _short(seen: Message, mover: int) -> str:
    groups = (seen.groups[mover],) if seen.motion else seen.groups
    form = "moving_there" if seen.motion else "related_there" if seen.relation else "there"
    said = Message(form, groups, False, seen.background, "" if seen.motion else seen.relation, motion=seen.motion)
    return caption(said, SOURCE)


def _detail(seen: Message, mover: int) -> str:
    parts = [
        caption(Message("shown", seen.groups, True), SOURCE),
        _where(seen),
        f"In the background is {_around(seen)}.",
    ]
    if seen.motion:
        parts.append(_moves(seen, mover))
    return " ".join(filter(None, parts))


def _objects(seen: Message, mover: int) -> str:
    names = [f"{COUNTS[group.count]} {_name(group)}" for group in seen.groups]
    return f"{', '.join([*names, _around(seen)]).capitalize()}."


def _attributes(seen: Message, mover: int) -> str:
    return " ".join(
        f"The {_these(group)} {english.be(group)} {group.colour} and {group.size}." for group in seen.groups
    )


def _actions(seen: Message, mover: int) -> str:
    return _moves(seen, mover) if seen.motion else f"Nothing moves. {_where(seen)}"


def _where(seen: Message) -> str:
    first = seen.groups[0]
    if seen.relation:
        relation = english.RELATIONS[seen.relation]
        return f"The {_these(first)} {english.be(first)} {relation} the {_these(seen.groups[1])}."
    return f"The {_these(first)} {english.be(first)} {english.PLACES[seen.place]}." if seen.place else ""


def _moves(seen: Message, mover: int) -> str:
    group = seen.groups[mover]
    still = "" if len(seen.groups) == 1 else f" The {_these(seen.groups[1 - mover])} do not move."
    if len(seen.groups) == 2 and seen.groups[1 - mover].count == 1:
        still = still.replace("do not", "does not")
    return f"The {_these(group)} {english.be(group)} moving {english.MOTIONS[seen.motion]}.{still}"


def _these(group: Group) -> str:
    """`two cars`, `car`."""
    return f"{COUNTS[group.count]} {_name(group)}" if group.count > 1 else _name(group)


def _name(group: Group) -> str:
    return english.NOUNS[group.kind][group.count > 1]


def _around(seen: Message) -> str:
    return AROUND[seen.background]


_TELLING = {"short": _short, "detail": _detail, "objects": _objects, "attributes": _attributes, "actions": _actions}

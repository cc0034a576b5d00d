"""English captions: articles, plurals, agreement of the verb."""

from pipeline.sources.scenes.content import Group
from pipeline.sources.scenes.grammar.base import Grammar

NOUNS = {
    "house": ("house", "houses"),
    "tree": ("tree", "trees"),
    "car": ("car", "cars"),
    "ball": ("ball", "balls"),
    "star": ("star", "stars"),
    "cup": ("cup", "cups"),
    "boat": ("boat", "boats"),
    "fish": ("fish", "fish"),
    "flower": ("flower", "flowers"),
    "umbrella": ("umbrella", "umbrellas"),
    "bird": ("bird", "birds"),
    "apple": ("apple", "apples"),
    "mushroom": ("mushroom", "mushrooms"),
    "hat": ("hat", "hats"),
}
NUMBERS = {2: "two", 3: "three", 4: "four"}


def noun_phrase(group: Group, sized: bool, case: str = "nom") -> str:
    """`two small red cars`; the same in all cases."""
    adjectives = f"{group.size} {group.colour}" if sized else group.colour
    if group.count > 1:
        return f"{NUMBERS[group.count]} {adjectives} {NOUNS[group.kind][1]}"
    return f"{'an' if adjectives[0] in 'aeiou' else 'a'} {adjectives} {NOUNS[group.kind][0]}"


ENGLISH = Grammar(
    noun_phrase=noun_phrase,
    backgrounds={
        "meadow": "in a meadow",
        "beach": "on a beach",
        "night": "under the night sky",
        "snow": "in the snow",
        "street": "on a street",
        "desert": "in the desert",
        "water": "on the water",
    },
    relations={
        "left": ("to the left of", "nom"),
        "right": ("to the right of", "nom"),
        "above": ("above", "nom"),
        "below": ("below", "nom"),
        "beside": ("next to", "nom"),
    },
    places={
        "left": "on the left side of the picture",
        "middle": "in the middle of the picture",
        "right": "on the right side of the picture",
    },
    motions={"left": "to the left", "right": "to the right", "up": "upwards", "down": "downwards"},
    verbs={"be": ("is", "are")},
    conjunction=" and ",
    templates={
        "related": "{first} {be} {relation} {second}",
        "beside": "{first} {be} {relation} {second}",
        "related_there": "{where}, {first} {be} {relation} {second}",
        "listed": "{all} {where}",
        "shown": "the picture shows {all}",
        "placed": "{first} {place}",
        "there": "there {be} {first} {where}",
        "moving": "{first} {be} moving {motion}",
        "moving_there": "{where}, {first} {be} moving {motion}",
        "passing": "{first} {be} moving {motion} {relation} {second}",
    },
)

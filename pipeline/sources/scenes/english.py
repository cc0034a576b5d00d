"""English captions: articles, plurals, agreement of the verb."""

from pipeline.sources.scenes.content import Group
from pipeline.sources.scenes.messages import Message

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
BACKGROUNDS = {
    "meadow": "in a meadow",
    "beach": "on a beach",
    "night": "under the night sky",
    "snow": "in the snow",
    "street": "on a street",
    "desert": "in the desert",
    "water": "on the water",
}
RELATIONS = {
    "left": "to the left of",
    "right": "to the right of",
    "above": "above",
    "below": "below",
    "beside": "next to",
}
PLACES = {
    "left": "on the left side of the picture",
    "middle": "in the middle of the picture",
    "right": "on the right side of the picture",
}
MOTIONS = {"left": "to the left", "right": "to the right", "up": "upwards", "down": "downwards"}


def noun(group: Group, sized: bool) -> str:
    """`two small red cars`."""
    one, many = NOUNS[group.kind]
    words = f"{group.size} {group.colour}" if sized else group.colour
    if group.count > 1:
        return f"{NUMBERS[group.count]} {words} {many}"
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words} {one}"


def be(group: Group) -> str:
    return "are" if group.count > 1 else "is"


def words(said: Message) -> list[str]:
    """The caption's words, without the full stop."""
    names = [noun(group, said.sized) for group in said.groups]
    first, where = said.groups[0], BACKGROUNDS.get(said.background, "")
    match said.form:
        case "related" | "beside":
            text = f"{names[0]} {be(first)} {RELATIONS[said.relation]} {names[1]}"
        case "related_there":
            text = f"{where}, {names[0]} {be(first)} {RELATIONS[said.relation]} {names[1]}"
        case "listed":
            text = f"{' and '.join(names)} {where}"
        case "shown":
            text = f"the picture shows {' and '.join(names)}"
        case "placed":
            text = f"{names[0]} {PLACES[said.place]}"
        case "there":
            text = f"there {be(first)} {names[0]} {where}"
        case "moving":
            text = f"{names[0]} {be(first)} moving {MOTIONS[said.motion]}"
        case "moving_there":
            text = f"{where}, {names[0]} {be(first)} moving {MOTIONS[said.motion]}"
        case "passing":
            text = f"{names[0]} {be(first)} moving {MOTIONS[said.motion]} {RELATIONS[said.relation]} {names[1]}"
        case form:
            raise ValueError(f"got the form {form!r}, wanted one of messages.FORMS")
    return text.split()

"""Japanese captions: counters, particles, `いる` of animals and `ある` of things."""

from pipeline.sources.scenes.content import Group
from pipeline.sources.scenes.messages import Message

NOUNS = {  # counter, noun
    "house": ("軒", "家"),
    "tree": ("本", "木"),
    "car": ("台", "車"),
    "ball": ("個", "ボール"),
    "star": ("個", "星"),
    "cup": ("個", "カップ"),
    "boat": ("隻", "船"),
    "fish": ("匹", "魚"),
    "flower": ("本", "花"),
    "umbrella": ("本", "傘"),
    "bird": ("羽", "鳥"),
    "apple": ("個", "りんご"),
    "mushroom": ("本", "きのこ"),
    "hat": ("個", "帽子"),
}
ALIVE = ("fish", "bird")  # what `いる` is said of
ADJECTIVES = {
    "red": "赤い",
    "blue": "青い",
    "green": "緑の",
    "yellow": "黄色い",
    "orange": "オレンジ色の",
    "purple": "紫の",
    "white": "白い",
    "black": "黒い",
    "small": "小さな",
    "large": "大きな",
}
NUMBERS = {1: "一", 2: "二", 3: "三", 4: "四"}
BACKGROUNDS = {
    "meadow": "草原",
    "beach": "砂浜",
    "night": "夜空の下",
    "snow": "雪の中",
    "street": "道路の上",
    "desert": "砂漠",
    "water": "水の上",
}
RELATIONS = {"left": "左", "right": "右", "above": "上", "below": "下", "beside": "横"}
PLACES = {"left": "左側", "middle": "中央", "right": "右側"}
MOTIONS = {"left": "左へ", "right": "右へ", "up": "上へ", "down": "下へ"}


def counted(group: Group) -> str:
    """`二台`."""
    return NUMBERS[group.count] + NOUNS[group.kind][0]


def bare(group: Group, sized: bool) -> list[str]:
    """`小さな 赤い 車`."""
    size = [ADJECTIVES[group.size]] if sized else []
    return [*size, ADJECTIVES[group.colour], NOUNS[group.kind][1]]


def noun(group: Group, sized: bool) -> list[str]:
    """`二台の 小さな 赤い 車`."""
    return [f"{counted(group)}の", *bare(group, sized)]


def be(group: Group) -> str:
    return "いる" if group.kind in ALIVE else "ある"


def words(said: Message) -> list[str]:
    """The caption's words, which are written without spaces; no full stop."""
    first, second = said.groups[0], said.groups[-1]
    names = [noun(group, said.sized) for group in said.groups]
    both = [*names[0], "と", *names[1]] if len(names) == 2 else names[0]
    where = BACKGROUNDS.get(said.background, "")
    exists = [*bare(first, said.sized), "が", counted(first), be(first)]
    match said.form:
        case "related" | "beside":
            return [*names[1], "の", RELATIONS[said.relation], "に", *exists]
        case "related_there":
            return [where, "に", be(second), *names[1], "の", RELATIONS[said.relation], "に、", *exists]
        case "listed":
            return [where, "に、", *both]
        case "shown":
            return ["画像には", *both, "が", "写っている"]
        case "placed":
            return ["画像の", PLACES[said.place], "に", *exists]
        case "there":
            return [where, "に", *exists]
        case "moving":
            return [*names[0], "が", MOTIONS[said.motion], "動いている"]
        case "moving_there":
            return [where, "で", *names[0], "が", MOTIONS[said.motion], "動いている"]
        case "passing":
            return [
                *names[0],
                "が",
                *names[1],
                "の",
                RELATIONS[said.relation],
                "を",
                MOTIONS[said.motion],
                "動いている",
            ]
        case form:
            raise ValueError(f"got the form {form!r}, wanted one of messages.FORMS")

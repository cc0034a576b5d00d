"""Chinese captions (simplified): measure words, `两` before them."""

from pipeline.sources.scenes.content import Group
from pipeline.sources.scenes.messages import Message

NOUNS = {  # measure word, noun
    "house": ("座", "房子"),
    "tree": ("棵", "树"),
    "car": ("辆", "汽车"),
    "ball": ("个", "球"),
    "star": ("颗", "星星"),
    "cup": ("个", "杯子"),
    "boat": ("艘", "船"),
    "fish": ("条", "鱼"),
    "flower": ("朵", "花"),
    "umbrella": ("把", "雨伞"),
    "bird": ("只", "鸟"),
    "apple": ("个", "苹果"),
    "mushroom": ("个", "蘑菇"),
    "hat": ("顶", "帽子"),
}
COLOURS = {
    "red": "红色",
    "blue": "蓝色",
    "green": "绿色",
    "yellow": "黄色",
    "orange": "橙色",
    "purple": "紫色",
    "white": "白色",
    "black": "黑色",
}
SIZES = {"small": "小", "large": "大"}
NUMBERS = {1: "一", 2: "两", 3: "三", 4: "四"}
BACKGROUNDS = {
    "meadow": "草地上",
    "beach": "沙滩上",
    "night": "夜空下",
    "snow": "雪地里",
    "street": "街道上",
    "desert": "沙漠里",
    "water": "水面上",
}
RELATIONS = {"left": "左边", "right": "右边", "above": "上方", "below": "下方", "beside": "旁边"}
PLACES = {"left": "图片左侧", "middle": "图片中间", "right": "图片右侧"}
MOTIONS = {"left": "向左", "right": "向右", "up": "向上", "down": "向下"}


def noun(group: Group, sized: bool) -> list[str]:
    """`两 辆 红色的 小 汽车`."""
    measure, name = NOUNS[group.kind]
    size = [SIZES[group.size]] if sized else []
    return [NUMBERS[group.count], measure, f"{COLOURS[group.colour]}的", *size, name]


def words(said: Message) -> list[str]:
    """The caption's words, which are written without spaces; no full stop."""
    first, *rest = [noun(group, said.sized) for group in said.groups]
    second = rest[0] if rest else []
    both = [*first, "和", *second] if second else first
    where = [BACKGROUNDS[said.background]] if said.background else []
    opening = [f"{where[0]}，"] if where else []
    match said.form:
        case "related" | "related_there" | "beside":
            return [*opening, *first, "在", *second, RELATIONS[said.relation]]
        case "listed" | "there":
            return [*where, "有", *both]
        case "shown":
            return ["图中", "可以", "看到", *both]
        case "placed":
            return [PLACES[said.place], "有", *first]
        case "moving" | "moving_there":
            return [*opening, *first, "正在", MOTIONS[said.motion], "移动"]
        case "passing":
            return [*first, "在", *second, f"{RELATIONS[said.relation]}，", "正在", MOTIONS[said.motion], "移动"]
        case form:
            raise ValueError(f"got the form {form!r}, wanted one of messages.FORMS")

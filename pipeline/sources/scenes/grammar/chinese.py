"""Chinese captions: simplified characters: measure words, `两` before them. Words are joined without spaces."""

from pipeline.sources.scenes.content import Group
from pipeline.sources.scenes.grammar.base import Grammar

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
ADJECTIVES = {
    "red": "红色的",
    "blue": "蓝色的",
    "green": "绿色的",
    "yellow": "黄色的",
    "orange": "橙色的",
    "purple": "紫色的",
    "white": "白色的",
    "black": "黑色的",
    "small": "小",
    "large": "大",
}
NUMBERS = {1: "一", 2: "两", 3: "三", 4: "四"}


def noun_phrase(group: Group, sized: bool, case: str = "nom") -> str:
    """`两 辆 红色的 小 汽车`; the same in all cases."""
    measure, noun = NOUNS[group.kind]
    adjectives = [ADJECTIVES[group.colour], *([ADJECTIVES[group.size]] if sized else [])]
    return " ".join([NUMBERS[group.count], measure, *adjectives, noun])


CHINESE = Grammar(
    noun_phrase=noun_phrase,
    backgrounds={
        "meadow": "草地上",
        "beach": "沙滩上",
        "night": "夜空下",
        "snow": "雪地里",
        "street": "街道上",
        "desert": "沙漠里",
        "water": "水面上",
    },
    relations={
        "left": ("左边", "nom"),
        "right": ("右边", "nom"),
        "above": ("上方", "nom"),
        "below": ("下方", "nom"),
        "beside": ("旁边", "nom"),
    },
    places={"left": "图片左侧", "middle": "图片中间", "right": "图片右侧"},
    motions={"left": "向左", "right": "向右", "up": "向上", "down": "向下"},
    conjunction=" 和 ",
    spaced=False,
    templates={
        "related": "{first} 在 {second} {relation}",
        "beside": "{first} 在 {second} {relation}",
        "related_there": "{where}， {first} 在 {second} {relation}",
        "listed": "{where} 有 {all}",
        "shown": "图中 可以 看到 {all}",
        "placed": "{place} 有 {first}",
        "there": "{where} 有 {first}",
        "moving": "{first} 正在 {motion} 移动",
        "moving_there": "{where}， {first} 正在 {motion} 移动",
        "passing": "{first} 在 {second} {relation}， 正在 {motion} 移动",
    },
)

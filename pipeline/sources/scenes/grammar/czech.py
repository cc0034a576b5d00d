"""Czech captions: gender with animacy, four cases, adjectives that agree, numerals up to four.

Two to four are followed by the plural in the case of the whole: `dva ptáci`, `nad dvěma ptáky`, `nalevo od dvou
ptáků`.
"""

from pipeline.sources.scenes.content import Group
from pipeline.sources.scenes.grammar.base import Grammar

CASES = ("nom", "gen", "acc", "ins")
NOUNS = {  # gender ("ma": masculine animate), the four cases of the singular, those of the plural
    "house": ("m", "dům domu dům domem", "domy domů domy domy"),
    "tree": ("m", "strom stromu strom stromem", "stromy stromů stromy stromy"),
    "car": ("n", "auto auta auto autem", "auta aut auta auty"),
    "ball": ("m", "míč míče míč míčem", "míče míčů míče míči"),
    "star": ("f", "hvězda hvězdy hvězdu hvězdou", "hvězdy hvězd hvězdy hvězdami"),
    "cup": ("m", "hrnek hrnku hrnek hrnkem", "hrnky hrnků hrnky hrnky"),
    "boat": ("f", "loď lodi loď lodí", "lodě lodí lodě loděmi"),
    "fish": ("f", "ryba ryby rybu rybou", "ryby ryb ryby rybami"),
    "flower": ("f", "květina květiny květinu květinou", "květiny květin květiny květinami"),
    "umbrella": ("m", "deštník deštníku deštník deštníkem", "deštníky deštníků deštníky deštníky"),
    "bird": ("ma", "pták ptáka ptáka ptákem", "ptáci ptáků ptáky ptáky"),
    "apple": ("n", "jablko jablka jablko jablkem", "jablka jablek jablka jablky"),
    "mushroom": ("f", "houba houby houbu houbou", "houby hub houby houbami"),
    "hat": ("m", "klobouk klobouku klobouk kloboukem", "klobouky klobouků klobouky klobouky"),
}
ADJECTIVES = {  # the stem, and the nominative of the animate plural, which softens it
    "red": ("červen", "červení"),
    "blue": ("modr", "modří"),
    "green": ("zelen", "zelení"),
    "yellow": ("žlut", "žlutí"),
    "orange": ("oranžov", "oranžoví"),
    "purple": ("fialov", "fialoví"),
    "white": ("bíl", "bílí"),
    "black": ("čern", "černí"),
    "small": ("mal", "malí"),
    "large": ("velk", "velcí"),
}
ENDINGS = {  # of adjectives in the four cases: singular, plural
    "m": (("ý", "ého", "ý", "ým"), ("é", "ých", "é", "ými")),
    "ma": (("ý", "ého", "ého", "ým"), ("", "ých", "é", "ými")),
    "f": (("á", "é", "ou", "ou"), ("é", "ých", "é", "ými")),
    "n": (("é", "ého", "é", "ým"), ("á", "ých", "á", "ými")),
}
NUMBERS = {  # in the four cases; for two, masculine
    2: ("dva", "dvou", "dva", "dvěma"),
    3: ("tři", "tří", "tři", "třemi"),
    4: ("čtyři", "čtyř", "čtyři", "čtyřmi"),
}


def noun_phrase(group: Group, sized: bool, case: str = "nom") -> str:
    """`dva malé červené ptáky`; a single one has no article."""
    gender, *forms = NOUNS[group.kind]
    plural, at = group.count > 1, CASES.index(case)
    words = []
    if plural:
        feminine_two = group.count == 2 and gender in ("f", "n") and case in ("nom", "acc")
        words.append("dvě" if feminine_two else NUMBERS[group.count][at])
    for name in [group.size, group.colour] if sized else [group.colour]:
        stem, animate = ADJECTIVES[name]
        softened = plural and gender == "ma" and case == "nom"
        words.append(animate if softened else stem + ENDINGS[gender][plural][at])
    return " ".join([*words, forms[plural].split()[at]])


CZECH = Grammar(
    noun_phrase=noun_phrase,
    backgrounds={
        "meadow": "na louce",
        "beach": "na pláži",
        "night": "pod noční oblohou",
        "snow": "ve sněhu",
        "street": "na ulici",
        "desert": "v poušti",
        "water": "na vodě",
    },
    relations={
        "left": ("nalevo od", "gen"),
        "right": ("napravo od", "gen"),
        "above": ("nad", "ins"),
        "below": ("pod", "ins"),
        "beside": ("vedle", "gen"),
    },
    places={"left": "v levé části obrázku", "middle": "uprostřed obrázku", "right": "v pravé části obrázku"},
    motions={"left": "doleva", "right": "doprava", "up": "nahoru", "down": "dolů"},
    verbs={"be": ("je", "jsou"), "moves": ("pohybuje", "pohybují")},
    conjunction=" a ",
    templates={
        "related": "{first} {be} {relation} {second}",
        "beside": "{first} {be} {relation} {second}",
        "related_there": "{where} {be} {first} {relation} {second}",
        "listed": "{all} {where}",
        "shown": "na obrázku vidíme {all_objects}",
        "placed": "{first} {place}",
        "there": "{where} {be} {first}",
        "moving": "{first} se {moves} {motion}",
        "moving_there": "{where} se {first} {moves} {motion}",
        "passing": "{first} se {moves} {motion} {relation} {second}",
    },
)

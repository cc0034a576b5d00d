"""German captions: gender, case, adjective endings, plurals, the verb in second place."""

from pipeline.sources.scenes.content import Group
from pipeline.sources.scenes.grammar.base import Grammar

NOUNS = {  # gender, singular, plural, plural dative
    "house": ("n", "Haus", "Häuser", "Häusern"),
    "tree": ("m", "Baum", "Bäume", "Bäumen"),
    "car": ("n", "Auto", "Autos", "Autos"),
    "ball": ("m", "Ball", "Bälle", "Bällen"),
    "star": ("m", "Stern", "Sterne", "Sternen"),
    "cup": ("f", "Tasse", "Tassen", "Tassen"),
    "boat": ("n", "Boot", "Boote", "Booten"),
    "fish": ("m", "Fisch", "Fische", "Fischen"),
    "flower": ("f", "Blume", "Blumen", "Blumen"),
    "umbrella": ("m", "Regenschirm", "Regenschirme", "Regenschirmen"),
    "bird": ("m", "Vogel", "Vögel", "Vögeln"),
    "apple": ("m", "Apfel", "Äpfel", "Äpfeln"),
    "mushroom": ("m", "Pilz", "Pilze", "Pilzen"),
    "hat": ("m", "Hut", "Hüte", "Hüten"),
}
ADJECTIVES = {
    "red": "rot",
    "blue": "blau",
    "green": "grün",
    "yellow": "gelb",
    "orange": "orangefarben",
    "purple": "violett",
    "white": "weiß",
    "black": "schwarz",
    "small": "klein",
    "large": "groß",
}
ARTICLES = {
    "nom": {"m": "ein", "f": "eine", "n": "ein"},
    "acc": {"m": "einen", "f": "eine", "n": "ein"},
    "dat": {"m": "einem", "f": "einer", "n": "einem"},
}
ENDINGS = {  # of adjectives; "p" is the plural
    "nom": {"m": "er", "f": "e", "n": "es", "p": "e"},
    "acc": {"m": "en", "f": "e", "n": "es", "p": "e"},
    "dat": {"m": "en", "f": "en", "n": "en", "p": "en"},
}
NUMBERS = {2: "zwei", 3: "drei", 4: "vier"}


def noun_phrase(group: Group, sized: bool, case: str = "nom") -> str:
    """`zwei kleinen roten Bällen`."""
    gender, singular, plural, plural_dative = NOUNS[group.kind]
    ending = ENDINGS[case]["p" if group.count > 1 else gender]
    names = [group.size, group.colour] if sized else [group.colour]
    adjectives = " ".join(ADJECTIVES[name] + ending for name in names)
    if group.count > 1:
        return f"{NUMBERS[group.count]} {adjectives} {plural_dative if case == 'dat' else plural}"
    return f"{ARTICLES[case][gender]} {adjectives} {singular}"


GERMAN = Grammar(
    noun_phrase=noun_phrase,
    backgrounds={
        "meadow": "auf einer Wiese",
        "beach": "am Strand",
        "night": "unter dem Nachthimmel",
        "snow": "im Schnee",
        "street": "auf einer Straße",
        "desert": "in der Wüste",
        "water": "auf dem Wasser",
    },
    relations={
        "left": ("links von", "dat"),
        "right": ("rechts von", "dat"),
        "above": ("über", "dat"),
        "below": ("unter", "dat"),
        "beside": ("neben", "dat"),
    },
    places={
        "left": "auf der linken Seite des Bildes",
        "middle": "in der Mitte des Bildes",
        "right": "auf der rechten Seite des Bildes",
    },
    motions={"left": "nach links", "right": "nach rechts", "up": "nach oben", "down": "nach unten"},
    verbs={"be": ("befindet sich", "befinden sich"), "moves": ("bewegt sich", "bewegen sich")},
    conjunction=" und ",
    templates={
        "related": "{first} {be} {relation} {second}",
        "beside": "{first} {be} {relation} {second}",
        "related_there": "{where} {be} {first} {relation} {second}",
        "listed": "{all} {where}",
        "shown": "das Bild zeigt {all_objects}",
        "placed": "{first} {place}",
        "there": "{where} sieht man {object}",
        "moving": "{first} {moves} {motion}",
        "moving_there": "{where} {moves} {first} {motion}",
        "passing": "{first} {moves} {relation} {second} {motion}",
    },
)

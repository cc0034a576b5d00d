"""German captions: gender, case, adjective endings, plurals, the verb in second place."""

from pipeline.sources.scenes.content import Group
from pipeline.sources.scenes.messages import Message

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
# By case and gender ("p": plural): the article, the ending of an adjective behind it.
ARTICLES = {
    "nom": {"m": "ein", "f": "eine", "n": "ein"},
    "acc": {"m": "einen", "f": "eine", "n": "ein"},
    "dat": {"m": "einem", "f": "einer", "n": "einem"},
}
ENDINGS = {
    "nom": {"m": "er", "f": "e", "n": "es", "p": "e"},
    "acc": {"m": "en", "f": "e", "n": "es", "p": "e"},
    "dat": {"m": "en", "f": "en", "n": "en", "p": "en"},
}
NUMBERS = {2: "zwei", 3: "drei", 4: "vier"}
BACKGROUNDS = {
    "meadow": "auf einer Wiese",
    "beach": "am Strand",
    "night": "unter dem Nachthimmel",
    "snow": "im Schnee",
    "street": "auf einer Straße",
    "desert": "in der Wüste",
    "water": "auf dem Wasser",
}
RELATIONS = {  # all with the dative
    "left": "links von",
    "right": "rechts von",
    "above": "über",
    "below": "unter",
    "beside": "neben",
}
PLACES = {
    "left": "auf der linken Seite des Bildes",
    "middle": "in der Mitte des Bildes",
    "right": "auf der rechten Seite des Bildes",
}
MOTIONS = {"left": "nach links", "right": "nach rechts", "up": "nach oben", "down": "nach unten"}


def noun(group: Group, sized: bool, case: str) -> str:
    """`zwei kleinen roten Bällen`."""
    gender, one, many, many_dative = NOUNS[group.kind]
    number = "p" if group.count > 1 else gender
    ending = ENDINGS[case][number]
    adjectives = " ".join(
        ADJECTIVES[name] + ending for name in ([group.size, group.colour] if sized else [group.colour])
    )
    if group.count > 1:
        return f"{NUMBERS[group.count]} {adjectives} {many_dative if case == 'dat' else many}"
    return f"{ARTICLES[case][gender]} {adjectives} {one}"


def words(said: Message) -> list[str]:
    """The caption's words, without the full stop."""

    def names(case: str) -> list[str]:
        return [noun(group, said.sized, case) for group in said.groups]

    many = said.groups[0].count > 1
    is_there = "befinden sich" if many else "befindet sich"
    moves = "bewegen sich" if many else "bewegt sich"
    first, where = names("nom")[0], BACKGROUNDS.get(said.background, "")
    related = f"{RELATIONS[said.relation]} {names('dat')[1]}" if said.relation else ""
    match said.form:
        case "related" | "beside":
            text = f"{first} {is_there} {related}"
        case "related_there":
            text = f"{where} {is_there} {first} {related}"
        case "listed":
            text = f"{' und '.join(names('nom'))} {where}"
        case "shown":
            text = f"das Bild zeigt {' und '.join(names('acc'))}"
        case "placed":
            text = f"{first} {PLACES[said.place]}"
        case "there":
            text = f"{where} sieht man {names('acc')[0]}"
        case "moving":
            text = f"{first} {moves} {MOTIONS[said.motion]}"
        case "moving_there":
            text = f"{where} {moves} {first} {MOTIONS[said.motion]}"
        case "passing":
            text = f"{first} {moves} {related} {MOTIONS[said.motion]}"
        case form:
            raise ValueError(f"got the form {form!r}, wanted one of messages.FORMS")
    return text.split()

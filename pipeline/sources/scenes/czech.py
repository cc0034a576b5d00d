"""Czech captions: gender with animacy, the four cases that are needed, adjectives that agree, numerals up to four.

Two to four are followed by the plural in the case of the whole: `dva ptáci`, `nad dvěma ptáky`, `nalevo od dvou ptáků`.
"""

from pipeline.sources.scenes.content import Group
from pipeline.sources.scenes.messages import Message

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
ADJECTIVES = {  # the stem, and the form of the animate plural, before which it softens
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
SINGULAR = {  # endings of adjectives in the four cases
    "m": ("ý", "ého", "ý", "ým"),
    "ma": ("ý", "ého", "ého", "ým"),
    "f": ("á", "é", "ou", "ou"),
    "n": ("é", "ého", "é", "ým"),
}
PLURAL = {
    "m": ("é", "ých", "é", "ými"),
    "ma": ("", "ých", "é", "ými"),  # the nominative stands in ADJECTIVES
    "f": ("é", "ých", "é", "ými"),
    "n": ("á", "ých", "á", "ými"),
}
NUMBERS = {  # in the four cases; for two, masculine
    2: ("dva", "dvou", "dva", "dvěma"),
    3: ("tři", "tří", "tři", "třemi"),
    4: ("čtyři", "čtyř", "čtyři", "čtyřmi"),
}
BACKGROUNDS = {
    "meadow": "na louce",
    "beach": "na pláži",
    "night": "pod noční oblohou",
    "snow": "ve sněhu",
    "street": "na ulici",
    "desert": "v poušti",
    "water": "na vodě",
}
RELATIONS = {  # with the case that follows
    "left": ("nalevo od", "gen"),
    "right": ("napravo od", "gen"),
    "above": ("nad", "ins"),
    "below": ("pod", "ins"),
    "beside": ("vedle", "gen"),
}
PLACES = {"left": "v levé části obrázku", "middle": "uprostřed obrázku", "right": "v pravé části obrázku"}
MOTIONS = {"left": "doleva", "right": "doprava", "up": "nahoru", "down": "dolů"}


def noun(group: Group, sized: bool, case: str) -> str:
    """`dva malé červené ptáky`."""
    gender, *forms = NOUNS[group.kind]
    plural, at = group.count > 1, CASES.index(case)
    names = [group.size, group.colour] if sized else [group.colour]
    adjectives = [adjective(name, gender, plural, case) for name in names]
    return " ".join([*number(group.count, gender, case), *adjectives, forms[plural].split()[at]])


def adjective(name: str, gender: str, plural: bool, case: str) -> str:
    stem, animate = ADJECTIVES[name]
    if plural and gender == "ma" and case == "nom":
        return animate
    return stem + (PLURAL if plural else SINGULAR)[gender][CASES.index(case)]


def number(count: int, gender: str, case: str) -> list[str]:
    """The numeral; none for one, as usual."""
    if count == 1:
        return []
    if count == 2 and case in ("nom", "acc") and gender in ("f", "n"):
        return ["dvě"]
    return [NUMBERS[count][CASES.index(case)]]


def words(said: Message) -> list[str]:
    """The caption's words, without the full stop."""

    def names(case: str) -> list[str]:
        return [noun(group, said.sized, case) for group in said.groups]

    many = said.groups[0].count > 1
    be, moves = ("jsou", "pohybují") if many else ("je", "pohybuje")
    first, where = names("nom")[0], BACKGROUNDS.get(said.background, "")
    related = ""
    if said.relation:
        preposition, case = RELATIONS[said.relation]
        related = f"{preposition} {names(case)[1]}"
    match said.form:
        case "related" | "beside":
            text = f"{first} {be} {related}"
        case "related_there":
            text = f"{where} {be} {first} {related}"
        case "listed":
            text = f"{' a '.join(names('nom'))} {where}"
        case "shown":
            text = f"na obrázku vidíme {' a '.join(names('acc'))}"
        case "placed":
            text = f"{first} {PLACES[said.place]}"
        case "there":
            text = f"{where} {be} {first}"
        case "moving":
            text = f"{first} se {moves} {MOTIONS[said.motion]}"
        case "moving_there":
            text = f"{where} se {first} {moves} {MOTIONS[said.motion]}"
        case "passing":
            text = f"{first} se {moves} {MOTIONS[said.motion]} {related}"
        case form:
            raise ValueError(f"got the form {form!r}, wanted one of messages.FORMS")
    return text.split()

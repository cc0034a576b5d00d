"""French captions: gender and number of adjectives, their places before and behind the noun, elision."""

from pipeline.sources.scenes.content import Group
from pipeline.sources.scenes.messages import Message

NOUNS = {  # gender, singular, plural
    "house": ("f", "maison", "maisons"),
    "tree": ("m", "arbre", "arbres"),
    "car": ("f", "voiture", "voitures"),
    "ball": ("f", "balle", "balles"),
    "star": ("f", "étoile", "étoiles"),
    "cup": ("f", "tasse", "tasses"),
    "boat": ("m", "bateau", "bateaux"),
    "fish": ("m", "poisson", "poissons"),
    "flower": ("f", "fleur", "fleurs"),
    "umbrella": ("m", "parapluie", "parapluies"),
    "bird": ("m", "oiseau", "oiseaux"),
    "apple": ("f", "pomme", "pommes"),
    "mushroom": ("m", "champignon", "champignons"),
    "hat": ("m", "chapeau", "chapeaux"),
}
ADJECTIVES = {  # masculine, feminine; masculine plural, feminine plural
    "red": ("rouge", "rouge", "rouges", "rouges"),
    "blue": ("bleu", "bleue", "bleus", "bleues"),
    "green": ("vert", "verte", "verts", "vertes"),
    "yellow": ("jaune", "jaune", "jaunes", "jaunes"),
    "orange": ("orange", "orange", "orange", "orange"),
    "purple": ("violet", "violette", "violets", "violettes"),
    "white": ("blanc", "blanche", "blancs", "blanches"),
    "black": ("noir", "noire", "noirs", "noires"),
    "small": ("petit", "petite", "petits", "petites"),
    "large": ("grand", "grande", "grands", "grandes"),
}
NUMBERS = {2: "deux", 3: "trois", 4: "quatre"}
BACKGROUNDS = {
    "meadow": "dans un pré",
    "beach": "sur une plage",
    "night": "sous le ciel nocturne",
    "snow": "dans la neige",
    "street": "dans une rue",
    "desert": "dans le désert",
    "water": "sur l'eau",
}
RELATIONS = {
    "left": "à gauche de",
    "right": "à droite de",
    "above": "au-dessus de",
    "below": "en dessous de",
    "beside": "à côté de",
}
PLACES = {
    "left": "dans la partie gauche de l'image",
    "middle": "au milieu de l'image",
    "right": "dans la partie droite de l'image",
}
MOTIONS = {"left": "vers la gauche", "right": "vers la droite", "up": "vers le haut", "down": "vers le bas"}


def noun(group: Group, sized: bool) -> str:
    """`deux petites voitures rouges`."""
    gender, one, many = NOUNS[group.kind]
    plural = group.count > 1
    column = (2 if plural else 0) + (gender == "f")
    article = NUMBERS[group.count] if plural else ("une" if gender == "f" else "un")
    size = [ADJECTIVES[group.size][column]] if sized else []
    return " ".join([article, *size, many if plural else one, ADJECTIVES[group.colour][column]])


def of(preposition: str, name: str) -> str:
    """`à gauche d'une tasse`, `à gauche de deux tasses`."""
    return f"{preposition.removesuffix('e')}'{name}" if name.startswith("un") else f"{preposition} {name}"


def words(said: Message) -> list[str]:
    """The caption's words, without the full stop."""
    names = [noun(group, said.sized) for group in said.groups]
    many = said.groups[0].count > 1
    is_there = "se trouvent" if many else "se trouve"
    moves = "se déplacent" if many else "se déplace"
    where = BACKGROUNDS.get(said.background, "")
    related = of(RELATIONS[said.relation], names[1]) if said.relation else ""
    match said.form:
        case "related" | "beside":
            text = f"{names[0]} {is_there} {related}"
        case "related_there":
            text = f"{where}, {names[0]} {is_there} {related}"
        case "listed":
            text = f"{' et '.join(names)} {where}"
        case "shown":
            text = f"l'image montre {' et '.join(names)}"
        case "placed":
            text = f"{names[0]} {PLACES[said.place]}"
        case "there":
            text = f"il y a {names[0]} {where}"
        case "moving":
            text = f"{names[0]} {moves} {MOTIONS[said.motion]}"
        case "moving_there":
            text = f"{where}, {names[0]} {moves} {MOTIONS[said.motion]}"
        case "passing":
            text = f"{names[0]} {moves} {MOTIONS[said.motion]} {related}"
        case form:
            raise ValueError(f"got the form {form!r}, wanted one of messages.FORMS")
    return text.split()

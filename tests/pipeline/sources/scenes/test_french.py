from pipeline.sources.scenes import french
from tests.pipeline.sources.scenes.told import check


def test_sentences_by_hand():
    check(
        "fr",
        """
        Deux voitures rouges se trouvent à gauche d'une balle bleue.
        Un grand oiseau blanc se trouve au-dessus de deux petites pommes jaunes.
        Sur une plage, un chapeau noir se trouve à droite d'une étoile orange.
        Trois poissons verts et un parapluie violet dans la neige.
        L'image montre un oiseau rouge et un poisson jaune.
        L'image montre deux grands oiseaux bleus.
        Une pomme orange dans la partie gauche de l'image.
        Quatre petits champignons blancs au milieu de l'image.
        Il y a deux maisons noires sous le ciel nocturne.
        Il y a un bateau jaune sur l'eau.
        Trois petits poissons rouges se déplacent vers la gauche.
        Dans une rue, une voiture verte se déplace vers le haut.
        Un oiseau noir se déplace vers la droite au-dessus de quatre arbres blancs.
        Trois grandes fleurs violettes se trouvent en dessous de trois petites tasses orange.
        Dans un pré, deux oiseaux verts se trouvent à gauche d'un arbre rouge.
        Un parapluie vert se trouve à droite d'une étoile blanche.
        Une tasse rouge se trouve en dessous d'une fleur jaune.
        L'image montre une maison blanche et une fleur bleue.
        Quatre grands oiseaux rouges se trouvent à gauche de quatre petits bateaux blancs.
        Deux petits chapeaux violets se trouvent à côté d'un petit bateau noir.
        Un poisson jaune se trouve à côté de trois oiseaux verts.
        """,
    )


def test_elision_before_the_article_alone():
    assert french.of("à gauche de", "une étoile") == "à gauche d'une étoile"
    assert french.of("en dessous de", "trois étoiles") == "en dessous de trois étoiles"

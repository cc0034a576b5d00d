from tests.pipeline.sources.scenes.told import check


def test_sentences_by_hand():
    check(
        "de",
        """
        Zwei rote Autos befinden sich links von einem blauen Ball.
        Ein großer weißer Vogel befindet sich über zwei kleinen gelben Äpfeln.
        Am Strand befindet sich ein schwarzer Hut rechts von einem orangefarbenen Stern.
        Drei grüne Fische und ein violetter Regenschirm im Schnee.
        Das Bild zeigt einen roten Vogel und einen gelben Fisch.
        Das Bild zeigt zwei große blaue Vögel.
        Ein orangefarbener Apfel auf der linken Seite des Bildes.
        Vier kleine weiße Pilze in der Mitte des Bildes.
        Unter dem Nachthimmel sieht man zwei schwarze Häuser.
        Auf dem Wasser sieht man ein gelbes Boot.
        Drei kleine rote Fische bewegen sich nach links.
        Auf einer Straße bewegt sich ein grünes Auto nach oben.
        Ein schwarzer Vogel bewegt sich über vier weißen Bäumen nach rechts.
        Drei große violette Blumen befinden sich unter drei kleinen orangefarbenen Tassen.
        Auf einer Wiese befinden sich zwei grüne Vögel links von einem roten Baum.
        Ein grüner Regenschirm befindet sich rechts von einem weißen Stern.
        Eine rote Tasse befindet sich unter einer gelben Blume.
        Das Bild zeigt ein weißes Haus und eine blaue Blume.
        Vier große rote Vögel befinden sich links von vier kleinen weißen Booten.
        Zwei kleine violette Hüte befinden sich neben einem kleinen schwarzen Boot.
        Ein gelber Fisch befindet sich neben drei grünen Vögeln.
        """,
    )

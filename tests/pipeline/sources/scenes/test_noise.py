import numpy as np
import pytest

from pipeline.sources.scenes.content import Group, Sampler
from pipeline.sources.scenes.languages import TARGETS, WORDS, caption
from pipeline.sources.scenes.messages import Message, messages
from pipeline.sources.scenes.noise import _shaken, changed_share, translation

SAID = Message("related", (Group("car", "red", "small", 2), Group("ball", "blue", "large", 1)), relation="left")


def many(noise, language="de", seed=0):
    rng = np.random.default_rng(1)
    said = [one for scene in Sampler(rng, 0.1).scenes(200) for one in messages(scene, rng, 3)]
    return [(one, translation(one, language, noise, seed, f"{at}#en#0")) for at, one in enumerate(said)]


@pytest.mark.parametrize("language", TARGETS)
def test_without_noise_it_is_the_grammars_sentence(language):
    assert all(done.text == caption(said, language) for said, done in many(0.0, language))


def test_it_depends_on_seed_caption_and_language_alone():
    first = translation(SAID, "de", 0.5, 0, "a#en#0")
    assert first == translation(SAID, "de", 0.5, 0, "a#en#0")
    texts = {translation(SAID, "de", 0.5, seed, f"{name}#en#0").text for seed in range(3) for name in "abc"}
    assert len(texts) > 3
    qualities = {translation(SAID, language, 0.0, 0, "a").quality for language in TARGETS}
    assert len(qualities - {1.0}) > 1


def test_more_noise_changes_more():
    shares = []
    for noise in (0.0, 0.1, 0.2, 0.5, 1.0):
        wrong = [done.text != caption(said, "de") for said, done in many(noise)]
        shares.append(sum(wrong) / len(wrong))
    assert shares[0] == 0
    assert shares == sorted(shares) and 0.4 < shares[2] < 0.9 and shares[4] > 0.98


def test_every_kind_of_fault_occurs():
    dropped = swapped = wrong = 0
    for said, done in many(0.3):
        clean, got = caption(said, "de").lower().rstrip(".").split(), done.text.lower().rstrip(".").split()
        dropped += len(got) < len(clean) and set(got) < set(clean)
        swapped += got != clean and sorted(got) == sorted(clean)
        wrong += bool(set(got) - set(clean))
    assert min(dropped, swapped, wrong) > 20


def test_quality_is_honest_on_average_and_wrong_in_the_single_case():
    found = []
    for said, done in many(0.4):
        words = done.text.rstrip(".").split()
        words[0] = words[0].lower() if words[0].lower() in WORDS["de"](said) else words[0]
        found.append((1 - changed_share(WORDS["de"](said), words), done.quality))
    true, told = np.array(found).T
    assert ((told > 0) & (told <= 1)).all()
    assert abs((true - told).mean()) < 0.05
    assert 0.04 < (true - told).std() < 0.12
    assert np.corrcoef(true, told)[0, 1] > 0.8


def test_something_is_left_at_the_highest_level():
    rng = np.random.default_rng(0)
    assert {tuple(_shaken(["rot"], 1.0, rng)) for _ in range(50)} == {("rot",)}
    assert {len(_shaken(["ein", "Auto"], 1.0, rng)) for _ in range(200)} == {1, 2}


@pytest.mark.parametrize(
    ("one", "two", "expected"),
    [
        ("a b c d", "a b c d", 0.0),
        ("a b c d", "a c d", 0.25),
        ("a b c d", "a c b d", 0.5),
        ("a b", "a b c d", 0.5),
        ("a b c d", "x y", 1.0),
        ("a a a", "a a", 1 / 3),
        ("a b c d e", "a x c y e", 0.4),
    ],
)
def test_changed_share(one, two, expected):
    assert changed_share(one.split(), two.split()) == pytest.approx(expected)
    assert changed_share(two.split(), one.split()) == pytest.approx(expected)

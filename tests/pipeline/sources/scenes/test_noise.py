from pathlib import Path

import numpy as np
import pytest
import yaml

from pipeline.sources.scenes.content import Group, Message, Sampler, Scene, draw_messages
from pipeline.sources.scenes.grammar import TARGETS, caption, grammar
from pipeline.sources.scenes.noise import changed_share, descriptions, translation

PICTURE = Scene("beach", (Group("car", "red", "small", 2), Group("fish", "blue", "large", 1)), "left")
CLIP = Scene("night", (Group("bird", "black", "large", 1), Group("hat", "white", "small", 3)), "above", "", "left", 1)
MESSAGE = Message("related", (Group("car", "red", "small", 2), Group("ball", "blue", "large", 1)), relation="left")


def translations(noise, language="de"):
    """Messages with their translations."""
    rng = np.random.default_rng(1)
    messages = [message for scene in Sampler(rng, 0.1).scenes(200) for message in draw_messages(scene, rng, 3)]
    return [(message, translation(message, language, noise, 0, f"{at}#en#0")) for at, message in enumerate(messages)]


@pytest.mark.parametrize("language", TARGETS)
def test_without_noise_it_is_the_sentence_of_the_grammar(language):
    assert all(text == caption(message, language) for message, (text, _) in translations(0.0, language))


def test_quality_is_right_on_average_and_blurred_in_the_single_case():
    qualities = []
    for message, (text, quality) in translations(0.4):
        words, clean = text.rstrip(".").split(), grammar("de").words(message)
        words[0] = words[0].lower() if words[0].lower() in clean else words[0]
        qualities.append((1 - changed_share(clean, words), quality))
    true, estimated = np.array(qualities).T
    assert ((estimated > 0) & (estimated <= 1)).all()
    assert abs((true - estimated).mean()) < 0.05
    assert 0.04 < (true - estimated).std() < 0.12
    assert np.corrcoef(true, estimated)[0, 1] > 0.8


def test_the_share_of_changed_words_by_hand():
    for first, second, expected in (("a b c d", "a c d", 0.25), ("a b c d", "x y", 1), ("a b c d e", "a x c y e", 0.4)):
        assert changed_share(first.split(), second.split()) == pytest.approx(expected)


def test_descriptions_by_hand():
    expected = yaml.safe_load(Path(__file__).with_name("descriptions.yaml").read_text("utf-8"))
    assert {"picture": descriptions(PICTURE, 0.0, 0, "a"), "clip": descriptions(CLIP, 0.0, 0, "a")} == expected

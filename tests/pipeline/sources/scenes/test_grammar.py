from pathlib import Path

import pytest
import yaml

from pipeline.sources.scenes.content import Group, Message
from pipeline.sources.scenes.grammar import LANGUAGES, caption


def group(text):
    """`2 red car`, or with a size `2 small red car`."""
    count, *rest = text.split()
    size, colour, kind = rest if len(rest) == 3 else ("small", *rest)
    return Group(kind, colour, size, int(count))


CASES = yaml.safe_load(Path(__file__).with_name("captions.yaml").read_text("utf-8"))


@pytest.mark.parametrize("language", LANGUAGES)
def test_sentences_by_hand(language):
    for case in CASES:
        sized = any(len(text.split()) == 4 for text in case["groups"])
        message = Message(case["form"], tuple(map(group, case["groups"])), sized, **case["facts"])
        assert caption(message, language) == case[language]

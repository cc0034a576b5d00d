"""Crossmodal-3600: small folders laid out as its owners do, with traps."""

import functools
import json

import pytest

from pipeline.sources.benchmarks import xm3600
from tests.pipeline.sources.helpers import items_and_summary, jpeg, numbered, refusal, write

opened = functools.partial(items_and_summary, "xm3600")
refused = functools.partial(refusal, "xm3600")

KEYS = ("0a2fe4ab1c0d5c2f", "ff01e9c3b7d21a00", "06c5f87181c30e00")
LANGUAGES = ("he", "quz", "zh")


def row(key, **more):
    texts = {
        language: {"caption": [f"{language} {at} of {key}" for at in range(2)], "caption/tokenized": ["cut"]}
        for language in LANGUAGES
    }
    return {"image/key": key, "image/locale": "quz", "split": "val", **texts, **more}


def lines(rows):
    return "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in rows)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Three pictures, two captions in each language, and a picture of nobody's."""
    for name, value in {"IMAGES": 3, "LANGUAGES": 3, "TOTAL": 18}.items():
        monkeypatch.setattr(xm3600, name, value)
    files = {f"images/{key}.jpg": jpeg(at) for at, key in enumerate((*KEYS, "stray"))}
    return write(tmp_path / "xm", {"captions.jsonl": lines(map(row, KEYS)), **files})


def test_pictures_with_their_captions_in_every_language(folder):
    items, summary = opened(folder)
    assert list(items) == list(KEYS) and {item.split for item in items.values()} == {"test"}
    item = items[KEYS[1]]
    assert item.uri.endswith(f"images/{KEYS[1]}.jpg") and item.media_type == "image"
    for language, name in {"he": "he", "qu": "quz", "zh": "zh"}.items():
        assert numbered(item, language) == {at: f"{name} {at} of {KEYS[1]}" for at in (0, 1)}
    assert "3 items (test 3), 18 captions" in summary
    assert "1 media files belong to no id and are not used (stray.jpg)" in summary


def test_counts_other_than_published(folder):
    write(folder, {"captions.jsonl": lines([row(KEYS[0], he={"caption": [" ", "he"]}), row(KEYS[1])])})
    message = refused(folder)
    assert "pictures in captions.jsonl: found 2, expected 3. Fetch" in message
    assert "captions in captions.jsonl: found 12, expected 18" in message
    items, summary = opened(folder, subset=True)
    assert "1 captions are blank" in summary and numbered(items[KEYS[0]], "he") == {1: "he"}


@pytest.mark.parametrize("line", ["", '{"image/key": ', "[" * 100_000, "[]", '{"image/key": "k", "de": ["x"]}'])
def test_a_line_of_another_layout_is_named(folder, line):
    write(folder, {"captions.jsonl": f"{lines([row(KEYS[0])])}{line}\n{lines([row(KEYS[1])])}"})
    assert "in line 2" in refused(folder, subset=True)


def test_a_column_that_is_not_a_language_is_refused(folder):
    write(folder, {"captions.jsonl": lines([row(KEYS[0], xx={"caption": ["?"]})])})
    assert "'xx' is not a language tag" in refused(folder, subset=True)

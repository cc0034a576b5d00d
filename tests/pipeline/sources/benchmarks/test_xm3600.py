"""Crossmodal-3600: small folders laid out as its owners do, with traps."""

import functools
import json

import pytest

from pipeline.sources.benchmarks import xm3600
from pipeline.translation.tags import check_language
from tests.pipeline.sources.helpers import jpeg, open_set, refusal, write

opened = functools.partial(open_set, "xm3600")
refused = functools.partial(refusal, "xm3600")

KEYS = ("0a2fe4ab1c0d5c2f", "ff01e9c3b7d21a00", "06c5f87181c30e00")


def row(key, each=2, **more):
    texts = {
        language: {
            "caption": [f"{language} {at} of {key}" for at in range(each)],
            "caption/tokenized": ["cut into words"] * each,
            "caption/tokenized/lowercase": ["cut into words"] * each,
        }
        for language in xm3600.LANGUAGES
    }
    return {"image/key": key, "image/locale": "quz", "split": "val", **texts, **more}


def lines(rows):
    return "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in rows)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Three pictures, two captions in each language, and a picture of nobody's."""
    monkeypatch.setattr(xm3600, "IMAGES", 3)
    monkeypatch.setattr(xm3600, "TOTAL", 3 * 36 * 2)
    files = {f"images/{key}.jpg": jpeg(at) for at, key in enumerate(KEYS)}
    return write(tmp_path / "xm", {"captions.jsonl": lines(map(row, KEYS)), **files, "images/stray.jpg": jpeg(9)})


def test_pictures_with_their_captions_in_every_language(folder):
    source = opened(folder, license="CC-BY 4.0")
    items = list(source.items())
    assert [item.item_id for item in items] == list(KEYS)
    assert {(item.split, item.source, item.license) for item in items} == {("test", "xm3600", "CC-BY 4.0")}
    assert items[1].uri.endswith(f"images/{KEYS[1]}.jpg") and items[1].media_type == "image"
    japanese = [caption for caption in items[1].captions if caption.language == "ja"]
    assert [(caption.number, caption.text, caption.origin) for caption in japanese] == [
        (at, f"ja {at} of {KEYS[1]}", "human") for at in (0, 1)
    ]
    assert "3 items (test 3), 216 captions" in source.summary
    assert "1 media files belong to no id and are not used (stray.jpg)" in source.summary


def test_every_language_has_the_tag_that_options_give_it(folder):
    assert len(set(xm3600.LANGUAGES)) == 36
    spoken = {caption.language for item in opened(folder).items() for caption in item.captions}
    assert spoken == {check_language(language, "") for language in xm3600.LANGUAGES}
    assert {"fil", "mi", "no", "qu", "zh"} < spoken and len(spoken) == 36


def test_counts_and_languages_other_than_published(folder):
    fewer = row(KEYS[0])
    del fewer["te"]
    fewer["he"]["caption"] = [" ", "he"]
    write(folder, {"captions.jsonl": lines([fewer, row(KEYS[1])])})
    (folder / "images" / f"{KEYS[2]}.jpg").unlink()
    message = refused(folder)
    assert "pictures in captions.jsonl: found 2, expected 3. Fetch" in message
    assert "captions in captions.jsonl: found 142, expected 216" in message
    source = opened(folder, subset=True)
    assert "found 2, expected 3 (--subset)" in source.summary
    assert "1 blank captions left out" in source.summary
    assert "1 times a picture has no caption in a language" in source.summary
    hebrew = [caption for caption in next(source.items()).captions if caption.language == "he"]
    assert [(caption.text, caption.number) for caption in hebrew] == [("he", 1)]


def test_a_strange_language_is_refused_whatever_the_options(folder):
    write(folder, {"captions.jsonl": lines([row(key, xx={"caption": ["?"]}) for key in KEYS])})
    assert "has captions in 'xx'" in refused(folder, subset=True)


@pytest.mark.parametrize(
    "line",
    [
        "",
        '{"image/key": ',
        "[" * 100_000,
        "[]",
        '{"image/key": 7}',
        '{"image/key": " "}',
        '{"image/key": "k", "de": ["x"]}',
        '{"image/key": "k", "de": {"caption": "x"}}',
        '{"image/key": "k", "de": {"caption": [1]}}',
    ],
)
def test_a_line_of_another_layout_is_named(folder, line):
    write(folder, {"captions.jsonl": f"{lines([row(KEYS[0])])}{line}\n{lines([row(KEYS[1])])}"})
    assert "line 2 has no row of the set" in refused(folder, subset=True)

"""Crossmodal-3600: small folders laid out as its owners do, with traps."""

import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UsageError
from pipeline.sources import open_source
from pipeline.sources.benchmarks import open_benchmark, xm3600
from pipeline.sources.benchmarks.checks import Options
from pipeline.sources.items import Defaults
from pipeline.translation.tags import check_language
from tests.pipeline.sources.helpers import jpeg, write

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


def opened(folder, **options):
    return open_source(str(folder), "xm3600", **options)


def refused(folder, **options):
    with pytest.raises(UsageError) as told:
        opened(folder, **options)
    return str(told.value)


def test_pictures_with_their_captions_in_every_language(folder):
    source = opened(folder, license="CC-BY 4.0")
    items = list(source.items())
    assert [item.item_id for item in items] == list(KEYS)
    assert {(item.split, item.source, item.license) for item in items} == {("test", "xm3600", "CC-BY 4.0")}
    assert items[1].uri.endswith(f"images/{KEYS[1]}.jpg") and items[1].media_type == ""
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


def test_published_counts():
    assert (xm3600.IMAGES, xm3600.TOTAL) == (3_600, 261_375)


def test_packed_captions_and_other_picture_suffixes(folder):
    (folder / "captions.jsonl").unlink()
    (folder / "images" / f"{KEYS[0]}.jpg").rename(folder / "images" / f"{KEYS[0]}.jpeg")
    write(folder, {"web-data/captions.jsonl.gz": gzip.compress(lines(map(row, KEYS)).encode())})
    assert next(opened(folder).items()).uri.endswith(".jpeg")


def test_counts_and_languages_other_than_published(folder):
    fewer = row(KEYS[0])
    del fewer["te"]
    fewer["he"]["caption"] = [" ", "he"]
    write(folder, {"captions.jsonl": lines([fewer, row(KEYS[1])])})
    (folder / "images" / f"{KEYS[2]}.jpg").unlink()
    told = refused(folder)
    assert "pictures in captions.jsonl: got 2, wanted 3: fetch" in told
    assert "captions in captions.jsonl: got 142, wanted 216" in told
    source = opened(folder, subset=True)
    assert "got 2, wanted 3 (--subset)" in source.summary
    assert "1 blank captions left out" in source.summary
    assert "1 times a picture has no caption in a language" in source.summary
    hebrew = [caption for caption in next(source.items()).captions if caption.language == "he"]
    assert [(caption.text, caption.number) for caption in hebrew] == [("he", 1)]


def test_a_language_that_nobody_has(folder):
    write(folder, {"captions.jsonl": lines([{**row(KEYS[0]), "te": None} | {"te": {"caption": []}}])})
    assert "languages in" not in refused(folder)  # the column is there
    rows = [row(key) for key in KEYS]
    for each in rows:
        del each["te"]
    write(folder, {"captions.jsonl": lines(rows)})
    assert "languages in captions.jsonl: got 35, wanted 36" in refused(folder)


def test_a_strange_language_is_refused_whatever_the_options(folder):
    write(folder, {"captions.jsonl": lines([row(key, xx={"caption": ["?"]}) for key in KEYS])})
    assert "got captions in 'xx', wanted the set's 36 languages alone" in refused(folder, subset=True)


def test_keys_without_pictures(folder):
    (folder / "images" / f"{KEYS[1]}.jpg").unlink()
    assert f"media: got none of 1 in 3 ids ({KEYS[1]})" in refused(folder)
    item = list(opened(folder, allow_missing_media=True).items())[1]
    assert (item.uri, item.media_type, len(item.captions)) == ("", "image", 72)


def test_a_key_that_comes_twice(folder):
    write(folder, {"captions.jsonl": lines(map(row, (*KEYS, KEYS[0])))})
    assert f"the id '{KEYS[0]}' comes twice, in line 1 and line 4" in refused(folder, subset=True)


def test_a_picture_that_is_there_twice(folder):
    write(folder, {f"again/{KEYS[0]}.jpg": jpeg(1)})
    assert f"has {KEYS[0]}.jpg more than once" in refused(folder)


def test_no_captions(folder):
    (folder / "captions.jsonl").unlink()
    assert "which has no captions.jsonl" in refused(folder)


def test_another_encoding(folder):
    (folder / "captions.jsonl").write_bytes(lines(map(row, KEYS)).replace("de 0", "dé 0").encode("latin-1"))
    assert "line 1: got byte 0xe9" in refused(folder) and "WINDOWS-1252" in refused(folder)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("", "a blank line"),
        ('{"image/key": ', "broken JSON"),
        ("[" * 100_000, "broken JSON"),
        ("[]", "no image/key"),
        ('{"image/key": 7}', "no image/key"),
        ('{"image/key": " "}', "no image/key"),
        ('{"image/key": "k", "de": ["x"]}', "'de' without a list of texts"),
        ('{"image/key": "k", "de": {"caption": "x"}}', "'de' without a list of texts"),
        ('{"image/key": "k", "de": {"caption": [1]}}', "'de' without a list of texts"),
    ],
)
def test_a_line_of_another_shape_is_named(folder, line, told):
    write(folder, {"captions.jsonl": f"{lines([row(KEYS[0])])}{line}\n{lines([row(KEYS[1])])}"})
    assert f"line 2: got {told}" in refused(folder, subset=True)


@given(texts=st.lists(st.text(), min_size=1, max_size=4))
def test_every_text_comes_back_with_its_number(tmp_path_factory, texts):
    folder = tmp_path_factory.mktemp("xm")
    write(folder, {"captions.jsonl": json.dumps({"image/key": "k", "ko": {"caption": texts}})})
    item = next(open_benchmark("xm3600", str(folder), Options(Defaults(), True, True)).items())
    got = [(caption.number, caption.text) for caption in item.captions]
    assert got == [(at, text.strip()) for at, text in enumerate(texts) if text.strip()]

"""XTD: small folders laid out as its repository, with traps."""

import functools

import pytest

from pipeline.sources.benchmarks import xtd
from tests.pipeline.sources.helpers import jpeg, open_set, refusal, write

opened = functools.partial(open_set, "xtd")
refused = functools.partial(refusal, "xtd")

NAMES = tuple(f"COCO_{part}2014_{number:012}.jpg" for number, part in ((9, "train"), (42, "val"), (7, "train")))
FILES = [{"ja": "jp"}.get(language, language) for language in xtd.LANGUAGES]
FOLDERS = {"de": "MIC", "fr": "MIC", "jp": "STAIR"}


def captions(language, count=3):
    return "".join(f"{language} caption {at}\n" for at in range(count))


def caption_file(language):
    return f"{FOLDERS.get(language, 'XTD10')}/test_1kcaptions_{language}.txt"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Three pictures, and one of nobody's."""
    monkeypatch.setattr(xtd, "IMAGES", 3)
    files = {caption_file(language): captions(language) for language in FILES}
    pictures = {f"images/{name}": jpeg(at) for at, name in enumerate(NAMES)}
    stray = {"images/COCO_val2014_000000000001.jpg": jpeg(9)}
    return write(tmp_path / "xtd", {"XTD10/test_image_names.txt": "\n".join(NAMES), **files, **pictures, **stray})


def test_pictures_in_the_order_of_the_list_with_a_caption_a_language(folder):
    source = opened(folder)
    items = list(source.items())
    assert [item.item_id for item in items] == list(NAMES)
    assert {(item.split, item.source) for item in items} == {("test", "xtd")}
    assert items[2].uri.endswith(f"images/{NAMES[2]}")
    written = [(caption.language, caption.text, caption.origin, caption.number) for caption in items[2].captions]
    assert written == [(tag, f"{name} caption 2", "human", 0) for name, tag in zip(FILES, xtd.LANGUAGES, strict=True)]
    assert "3 items (test 3), 33 captions" in source.summary
    assert "2 of 3 images are of COCO train2014" in source.summary
    assert "belong to no id and are not used (COCO_val2014_000000000001.jpg)" in source.summary


def test_pictures_under_their_names_of_2017_and_names_without_suffix(folder):
    (folder / "images" / NAMES[1]).rename(folder / "images" / "000000000042.jpg")
    write(folder, {"XTD10/test_image_names.txt": "".join(f"{name[:-4]}\r\n" for name in NAMES)})
    item = list(opened(folder).items())[1]
    assert item.item_id == NAMES[1] and item.uri.endswith("000000000042.jpg")


def test_a_file_that_is_there_twice_says_the_same(folder):
    write(folder, {"MIC/test_image_names.txt": "\n".join(NAMES), "MIC/test_1kcaptions_en.txt": captions("en")})
    assert len(list(opened(folder).items())) == 3
    write(folder, {"MIC/test_1kcaptions_en.txt": captions("de")})
    assert "test_1kcaptions_en.txt differ" in refused(folder)


def test_another_number_of_lines_than_names_is_always_refused(folder):
    write(folder, {caption_file("ko"): captions("ko", 2)})
    message = refused(folder, subset=True, allow_missing_media=True)
    assert "has 2 lines, but" in message


def test_a_blank_line_is_no_caption_and_shifts_nothing(folder):
    write(folder, {caption_file("it"): "it caption 0\n \nit caption 2\n"})
    source = opened(folder)
    italian = [[caption.text for caption in item.captions if caption.language == "it"] for item in source.items()]
    assert italian == [["it caption 0"], [], ["it caption 2"]]
    assert "1 blank lines, which are not captions" in source.summary


@pytest.mark.parametrize("again", [NAMES[0], NAMES[0].replace("train", "val")])
def test_a_picture_that_is_listed_twice(folder, again):
    write(folder, {"XTD10/test_image_names.txt": "\n".join((NAMES[0], NAMES[1], again))})
    assert "the id '000000000009' comes twice, in line 1 and line 3" in refused(folder, subset=True)


@pytest.mark.parametrize("name", ["", "flickr_1.jpg", "../COCO_val2014_000000000042.jpg"])
def test_a_name_that_is_none_of_cocos(folder, name):
    write(folder, {"XTD10/test_image_names.txt": "\n".join((NAMES[0], name, NAMES[2]))})
    assert f"line 2 has the name {name!r}" in refused(folder, subset=True)

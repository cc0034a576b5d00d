"""XTD: small folders laid out as its repository, with traps."""

import functools

import pytest

from pipeline.sources.benchmarks import xtd
from tests.pipeline.sources.helpers import all_captions, items_and_summary, jpeg, numbered, refusal, write
from tests.worked_examples import each_example

opened = functools.partial(items_and_summary, "xtd")
refused = functools.partial(refusal, "xtd", subset=True)

NAMES = tuple(f"COCO_{part}2014_{number:012}.jpg" for number, part in ((9, "train"), (42, "val"), (7, "train")))
FOLDERS = {"de": "MIC", "fr": "MIC", "ja": "STAIR"}
LIST = "XTD10/test_image_names.txt"


def caption_file(language):
    return f"{FOLDERS.get(language, 'XTD10')}/test_1kcaptions_{xtd.FILE_NAMES.get(language, language)}.txt"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Three pictures, and one of nobody's."""
    monkeypatch.setattr(xtd, "IMAGES", 3)
    files = {caption_file(tag): "".join(f"{tag} caption {at}\n" for at in range(3)) for tag in xtd.LANGUAGES}
    pictures = {f"images/{name}": jpeg(at) for at, name in enumerate((*NAMES, "COCO_val2014_000000000001.jpg"))}
    return write(tmp_path / "xtd", {LIST: "\n".join(NAMES), **files, **pictures})


def test_pictures_in_the_order_of_the_list_with_a_caption_per_language(folder):
    items, summary = opened(folder)
    assert list(items) == list(NAMES) and {item.split for item in items.values()} == {"test"}
    assert items[NAMES[2]].uri.endswith(f"images/{NAMES[2]}")
    assert all_captions(items[NAMES[2]]) == [(tag, "human", 0, f"{tag} caption 2") for tag in xtd.LANGUAGES]
    assert "2 of 3 images are of COCO train2014" in summary
    assert "belong to no id and are not used (COCO_val2014_000000000001.jpg)" in summary


def test_pictures_under_their_names_of_2017_and_names_without_suffix(folder):
    (folder / "images" / NAMES[1]).rename(folder / "images" / "000000000042.jpg")
    write(folder, {LIST: "".join(f"{name[:-4]}\r\n" for name in NAMES)})
    assert opened(folder)[0][NAMES[1]].uri.endswith("000000000042.jpg")


def test_copies_of_a_file_must_not_differ(folder):
    copy = write(folder, {"MIC/test_image_names.txt": "\n".join(NAMES)})
    assert len(opened(copy)[0]) == 3
    write(folder, {"MIC/test_1kcaptions_en.txt": "else"})
    assert "test_1kcaptions_en.txt differ" in refused(folder)


def test_a_blank_line_is_no_caption_and_shifts_nothing(folder):
    write(folder, {caption_file("it"): "it caption 0\n \nit caption 2\n"})
    items, summary = opened(folder)
    assert [numbered(item, "it") for item in items.values()] == [{0: "it caption 0"}, {}, {0: "it caption 2"}]
    assert "1 captions are blank" in summary


@each_example("lists_and_lines_that_do_not_fit_are_always_refused", "file, content, message")
def test_lists_and_lines_that_do_not_fit_are_always_refused(folder, file, content, message):
    assert message in refused(write(folder, {file: content}), allow_missing_media=True)

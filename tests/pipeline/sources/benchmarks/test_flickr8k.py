"""Flickr8k: what the layouts of its owners and of Flickr8k-CN leave open."""

import functools

import pytest

from tests.pipeline.sources.benchmarks import layouts
from tests.pipeline.sources.helpers import all_captions, items_and_summary, numbered, refusal, write
from tests.worked_examples import each_example

opened = functools.partial(items_and_summary, "flickr8k", subset=True)
wrong = functools.partial(refusal, "flickr8k")
KARPATHY = "dataset_flickr8k.json"
TRANSLATED = "data/flickr8kzhb.caption.txt.v20160815"


@pytest.fixture
def layout(tmp_path):
    return layouts.flickr8k(tmp_path)


def test_the_owners_release_by_itself(layout):
    for path in (layout.folder / "data").iterdir():
        path.unlink()
    items, summary = opened(layout.folder)
    assert {name: item.split for name, item in items.items()} == layout.splits
    assert {language for item in items.values() for language, *_ in all_captions(item)} == {"en"}
    first = items["1000_a.jpg"]
    assert numbered(first, "en") == {2 - number: text for (_, number), text in layout.human["1000_a.jpg"].items()}
    assert "1 pictures with captions are in no split" in summary


def test_lists_of_flickr8k_cn_have_names_without_suffix(layout):
    items, _ = opened(layout.folder)
    for name, split in (("train", "train"), ("dev", "val"), ("test", "test")):
        path = layout.folder / f"Flickr_8k.{name}Images.txt"
        names = [line.removesuffix(".jpg") for line in path.read_text().splitlines()]
        write(layout.folder, {f"data/flickr8k{split}.txt": "\n".join(names)})
        assert opened(layout.folder)[0] == items  # both lists
        path.unlink()
    assert opened(layout.folder)[0] == items


def test_another_translation_is_used_only_where_the_first_is_missing(layout):
    (layout.folder / TRANSLATED).unlink()
    items, summary = opened(layout.folder)
    texts = numbered(items["1000_a.jpg"], "zh")
    assert all(text.endswith(layouts.FORBIDDEN) for text in texts.values()) and len(texts) == 3
    assert "30 human captions in zh of items that are trained on: not used" in summary


@pytest.mark.parametrize("names", [("captions.txt", "lists"), (KARPATHY,), (KARPATHY, "captions.txt")])
def test_the_files_of_kaggle_and_karpathy(layout, names):
    expected, _ = opened(layout.folder)
    texts = {item: list(numbered(of, "en").values()) for item, of in expected.items()}
    for path in [*(layout.folder / "data").iterdir(), layout.folder / "Flickr8k.token.txt"]:
        path.unlink()
    for path in layout.folder.glob("*Images.txt") if "lists" not in names else ():
        path.unlink()
    rows = [f'{item},"{text}"\n' for item, of in texts.items() for text in of]
    (layout.folder / "captions.txt").write_text("image,caption\n" + "".join(rows))
    (layout.folder / KARPATHY).write_text(layouts.karpathy(layout.splits, texts))
    for name in {"captions.txt", KARPATHY} - {*names}:
        (layout.folder / name).unlink()
    items, _ = opened(layout.folder)
    assert {item: of.split for item, of in items.items()} == layout.splits
    assert {item: list(numbered(of, "en").values()) for item, of in items.items()} == texts


@each_example("broken_files_of_flickr8k", "files, message")
def test_broken_files(layout, files, message):
    assert message in wrong(write(layout.folder, files), subset=True)

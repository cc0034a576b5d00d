import numpy as np
import pytest

from pipeline.errors import UsageError
from pipeline.media.uri import open_media
from pipeline.sources import open_source
from pipeline.sources.benchmarks import open_benchmark
from pipeline.sources.benchmarks.importer import Importer, Options
from pipeline.sources.items import Defaults, SourceCaption
from tests.pipeline.sources.benchmarks import layouts
from tests.pipeline.sources.helpers import all_captions, items_and_summary, jpeg, write

STRICT = Options(Defaults(license="research"))
LOOSE = Options(Defaults(), subset=True, allow_missing_media=True)
SETS = {
    **{name: (source, build) for name, (source, build, _) in layouts.SETS.items()},
    "flickr30k": ("flickr30k", layouts.flickr30k),
    "release": ("leccr_release", layouts.release_with_pictures),
    "release of features": ("leccr_release", layouts.release_with_frames),
}


@pytest.mark.parametrize("name", SETS)
def test_items_are_those_that_were_laid_out(name, tmp_path):
    source, build = SETS[name]
    layout = build(tmp_path)
    items, _ = items_and_summary(source, tmp_path, subset=True, license="of the set")
    assert {item_id: (item.split, item.license) for item_id, item in items.items()} == {
        item_id: (split, "of the set") for item_id, split in layout.splits.items()
    }
    for item_id, item in items.items():
        captions = {(origin, language, number): text for language, origin, number, text in all_captions(item)}
        expected = {("human", *key): text for key, text in layout.human[item_id].items()}
        expected |= {("mt", *key): text for key, text in layout.machine.get(item_id, {}).items()}
        expected |= {("mllm", "en", 0): layout.described[item_id]} if item_id in layout.described else {}
        assert captions == expected and len(item.captions) == len(expected)
        assert item.media_type == ("video" if layout.features else "image")
        with open_media(item.uri) as stream:
            if layout.features:
                features = np.load(stream, allow_pickle=False).reshape(layout.features[item_id].shape)
                np.testing.assert_array_equal(features, layout.features[item_id])
            else:
                at = list(layout.splits).index(item_id)
                at += name == "coco_cn"  # COCO-CN lacks the first picture
                assert stream.read() == layouts.picture(at)


def importer(options, root, missing=2):
    write(root, {"0.jpg": jpeg(1), "x.jpg": jpeg(2), **{f"{at}.jpg": jpeg(3) for at in range(1, 4 - missing)}})
    filled = Importer("multi30k", root, options)
    for number in range(3):
        filled.add_text(f"{number}.jpg", "en", "One.")
        filled.add_text(f"{number}.jpg", "de", "Eins." if number else "")
    filled.add_items({f"{number}.jpg": "val" for number in range(3)})
    return filled


def test_every_difference_is_reported_at_once(tmp_path):
    strict = importer(STRICT, tmp_path)
    strict.count("captions in de, train", 28_999, 29_000)
    strict.count("images", 3, 2, 3)
    strict.problem("more")
    with pytest.raises(UsageError) as caught:
        strict.finish()
    _, *lines = str(caught.value).split("\n")
    assert lines[0].startswith("  captions in de, train: found 28,999, expected 29,000") and "--subset" in lines[0]
    assert lines[1] == "  more" and len(lines) == 3
    assert "1 of 3 items have none" in lines[2] and "2.jpg" in lines[2] and "--allow-missing-media" in lines[2]


def test_the_summary_counts_and_notes_what_the_user_allows(tmp_path):
    loose = importer(LOOSE, tmp_path / "coco")
    loose.count("images", 3, 2)
    source = loose.finish()
    assert source.summary.startswith(f"multi30k {tmp_path}/coco: 3 items (val 3), 5 captions (en 3, de 2); ")
    for note in (
        "images: found 3, expected 2 (--subset)",
        "1 of 3 items have no media",
        "1 captions are blank",
        "1 media files belong to no id and are not used (x.jpg)",
    ):
        assert note in source.summary
    first, *_ = source.items()
    assert source.name == "coco" and first.captions == (SourceCaption("One.", "en", "human", 0),)
    with pytest.raises(UsageError, match="no item of the set"):
        Importer("mscoco", tmp_path, STRICT).finish()


def test_options_of_benchmarks_are_refused_elsewhere(tmp_path):
    for option in ("subset", "allow_missing_media"):
        with pytest.raises(UsageError, match="benchmark"):
            open_source(str(tmp_path), "folder", **{option: True})
    for location, message in (("memory://set", "on this machine"), (str(tmp_path / "gone"), "not a folder")):
        with pytest.raises(UsageError, match=message):
            open_benchmark("multi30k", location, STRICT)

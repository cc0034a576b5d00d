import pytest

from pipeline.errors import UsageError
from pipeline.sources import open_source
from pipeline.sources.benchmarks import open_benchmark
from pipeline.sources.benchmarks.importer import Importer, Options
from pipeline.sources.items import Defaults, SourceCaption
from tests.pipeline.sources.helpers import jpeg, write

STRICT = Options(Defaults(license="research"))
UNUSED = "1 media files belong to no id and are not used (x.jpg)"
LOOSE = Options(Defaults(), subset=True, allow_missing_media=True)


def importer(options, root, missing=2):
    write(root, {"a.jpg": jpeg(1), "x.jpg": jpeg(2)})
    filled = Importer("multi30k", root, options)
    captions = (SourceCaption("One."), SourceCaption("Eins.", "de"))
    for number in range(3):
        filled.add(f"{number}.jpg", "val", captions, "" if number < missing else filled.files.medium("a.jpg"))
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
    assert lines[1:2] == ["  more"]
    assert "2 of 3 items have none" in lines[2] and "0.jpg, 1.jpg" in lines[2] and "--allow-missing-media" in lines[2]
    assert len(lines) == 3


def test_what_the_user_allows_is_noted(tmp_path):
    loose = importer(LOOSE, tmp_path)
    loose.count("images", 3, 2)
    loose.note("more")
    summary = loose.finish().summary
    for note in ("images: found 3, expected 2 (--subset)", "more", "2 of 3 items have no media", UNUSED):
        assert note in summary


def test_the_source_counts_and_an_empty_set_is_refused(tmp_path):
    source = importer(STRICT, tmp_path / "coco", missing=0).finish()
    assert source.summary == f"multi30k {tmp_path}/coco: 3 items (val 3), 6 captions (en 3, de 3); {UNUSED}"
    assert source.name == "coco" and list(source.items()) == list(source.items())
    assert {(item.license, item.source, item.media_type) for item in source.items()} == {
        ("research", "multi30k", "image")
    }
    with pytest.raises(UsageError, match="no item of the set"):
        Importer("mscoco", tmp_path, STRICT).finish()


def test_options_of_benchmarks_are_refused_elsewhere(tmp_path):
    for option in ("subset", "allow_missing_media"):
        with pytest.raises(UsageError, match="benchmark"):
            open_source(str(tmp_path), "folder", **{option: True})
    for location, message in (("memory://set", "on this machine"), (str(tmp_path / "gone"), "not a folder")):
        with pytest.raises(UsageError, match=message):
            open_benchmark("multi30k", location, STRICT)

import tracemalloc
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import UsageError
from pipeline.sources import SourceItem, all_items, open_source
from tests.pipeline.sources.helpers import content, jpeg, listed, pack, write


@dataclass
class Scripted:
    """A source that yields what it is given."""

    ids: tuple[str, ...]
    kind: str = "dataset"
    name: str = "scripted"
    summary: str = ""

    def items(self):
        for at, item_id in enumerate(self.ids):
            yield SourceItem(item_id, f"row-{at}")


@pytest.fixture
def inputs(tmp_path):
    write(tmp_path, {"folder/a.jpg": jpeg(1), "list.txt": "folder/a.jpg\n", "tars/x.md": "", "rows/y.md": ""})
    pack(tmp_path / "tars" / "t.tar", [("k.jpg", jpeg(2))])
    pq.write_table(pa.table({"image": [jpeg(3)]}), tmp_path / "rows" / "r.parquet")
    return tmp_path


def test_auto_recognizes_each_kind(inputs):
    expected = {
        "folder": "folder",
        "list.txt": "paths",
        "tars": "webdataset",
        "tars/t.tar": "webdataset",
        "tars/{t}.tar": "webdataset",
        "rows": "dataset",
        "rows/r.parquet": "dataset",
    }
    for name, kind in expected.items():
        for asked in ("auto", kind):
            source = open_source(f"{inputs}/{name}", asked)
            assert source.kind == kind and source.summary.startswith(f"{kind} {inputs}/{name}: ")
            assert len(listed(source)) == 1


def test_a_kind_that_does_not_fit_is_refused(inputs):
    for kinds, names in {
        "webdataset dataset paths samples": ["folder"],
        "folder paths dataset": ["tars", "tars/*.tar"],
        "folder webdataset paths": ["rows"],
        "folder webdataset dataset samples": ["list.txt", "rows/y.md"],
        "auto folder webdataset dataset": ["folder/a.jpg", "tars/x.md", "gone", "gone/{0..9}.tar"],
    }.items():
        for kind in kinds.split():
            for name in names:
                with pytest.raises(UsageError, match=r"--(input|source)\b"):
                    open_source(f"{inputs}/{name}", kind)


def test_contradicting_options_are_refused(inputs):
    with pytest.raises(UsageError, match="'foldr' is not one of auto, folder"):
        open_source(str(inputs), "foldr")
    with pytest.raises(UsageError, match="--source dataset: give the path"):
        open_source(None, "dataset")
    with pytest.raises(UsageError, match="--source samples takes no --input"):
        open_source(str(inputs), "samples")
    with pytest.raises(UsageError, match="fsspec cannot open nope://x"):
        open_source("nope://x")
    pack(inputs / "rows" / "t.tar", [("k.jpg", jpeg(2))])
    with pytest.raises(UsageError, match=r"1 \.md, 1 \.parquet, 1 \.tar, which may be the same items: give one"):
        open_source(str(inputs / "rows"))


def test_ids_of_several_inputs_begin_with_their_names(tmp_path):
    places = ["x/pics/", "y/pics", "z/pics-2", "pics"]
    for place in places:
        write(tmp_path / place, {"a.jpg": jpeg(len(place))})
    sources = [open_source(f"{tmp_path}/{place}", license="CC0") for place in places]
    items = listed(*sources)
    assert list(items) == ["pics/a.jpg", "pics-2/a.jpg", "pics-2-2/a.jpg", "pics-3/a.jpg"]
    assert [content(item) for item in items.values()] == [jpeg(len(place)) for place in places]
    assert {item.license for item in items.values()} == {"CC0"}
    assert list(listed(sources[0])) == ["a.jpg"]


def test_a_duplicate_id_is_refused_with_both_places():
    with pytest.raises(UsageError, match=r"'b' comes twice, as item 2 \(row-1\) and item 4 \(row-3\)"):
        list(all_items([Scripted(("a", "b", "c", "b"))]))
    assert len(list(all_items([Scripted(("a", "b")), Scripted(("a", "b"))]))) == 4


def test_ids_with_equal_hashes_are_two_items(monkeypatch):
    monkeypatch.setattr("pipeline.sources.items.hash", lambda text: 1, raising=False)
    assert [item.item_id for item in all_items([Scripted(("a", "b"))])] == ["a", "b"]


def test_items_stream(tmp_path):
    """Ten times the items take no more memory while they are iterated: nothing is kept of them."""

    def peak(count):
        folder = write(tmp_path / str(count), {"captions.jsonl": ""})
        for number in range(count):
            (folder / f"{number}.jpg").touch()
        rows = "".join(
            f'{{"file": "{number}.jpg", "captions": ["{"word " * 50}{number}"]}}\n' for number in range(count)
        )
        write(folder, {"captions.jsonl": rows})
        source = open_source(str(folder))
        tracemalloc.start()
        assert sum(len(item.captions) for item in all_items([source])) == count
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    assert peak(3000) < 1.3 * peak(300) + 20_000

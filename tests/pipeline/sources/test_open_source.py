import tracemalloc
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import UsageError
from pipeline.sources import all_items, listing, open_source
from tests.pipeline.sources.helpers import content, jpeg, listed, pack, write


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
    pack(inputs / "folder" / "t.tar", [("b.jpg", jpeg(2))])
    assert [list(listed(open_source(f"{inputs}/folder", kind))) for kind in ("auto", "webdataset")] == [
        ["a.jpg"],
        ["b"],
    ]


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
    pack(inputs / "rows" / "t.tar", [("k.jpg", jpeg(2))])
    for (place, kind), message in {
        (None, "dataset"): "--source dataset: give the path",
        (str(inputs), "samples"): "--source samples takes no --input",
        ("nope://x", "auto"): "fsspec cannot open nope://x",
        (f"{inputs}/rows", "auto"): r"1 \.md, 1 \.parquet, 1 \.tar, which may be the same items: give one",
    }.items():
        with pytest.raises(UsageError, match=message):
            open_source(place, kind)


def test_ids_of_several_inputs_begin_with_their_names(tmp_path):
    places = ["x/pics/", "y/pics", "z/pics-2", "pics"]
    for place in places:
        write(tmp_path / place, {"a.jpg": jpeg(len(place))})
    items = listed(*(open_source(f"{tmp_path}/{place}") for place in places))
    assert list(items) == ["pics/a.jpg", "pics-2/a.jpg", "pics-2-2/a.jpg", "pics-3/a.jpg"]
    assert [content(item) for item in items.values()] == [jpeg(len(place)) for place in places]


def test_a_duplicate_id_is_refused(tmp_path):
    write(tmp_path, {"one.txt": "a.jpg\nb.jpg\n"})
    source = open_source(f"{tmp_path}/one.txt")
    assert len(listed(*[source] * 2)) == 4
    damaged = SimpleNamespace(kind="dataset", name="d", items=lambda: [*source.items(), *source.items()])
    with pytest.raises(UsageError, match=r"'a\.jpg' comes twice"):
        listed(damaged)


@pytest.mark.parametrize("name", ["val2017", "Validation_Set", "dev-images"])
def test_an_input_may_be_named_after_its_split(tmp_path, name):
    write(tmp_path / name, {"a.jpg": jpeg(1), "in/b.jpg": jpeg(2), "train/c.jpg": jpeg(3)})
    splits = {name: item.split for name, item in listed(open_source(f"{tmp_path}/{name}")).items()}
    assert splits == {"a.jpg": "val", "in/b.jpg": "val", "train/c.jpg": "train"}
    write(tmp_path / "test", {"a.jpg": jpeg(1)})
    assert [item.split for item in listed(open_source(f"{tmp_path}/test")).values()] == ["test"]
    (tmp_path / name).rename(tmp_path / "mine")  # without a neighbour of another split it may be a trial
    assert [item.split for item in listed(open_source(f"{tmp_path}/test")).values()] == ["train"]
    name = "mine"
    assert {item.split for item in listed(open_source(f"{tmp_path}/{name}/in", split="extra")).values()} == {"extra"}


def test_a_listing_takes_no_memory(tmp_path, monkeypatch):
    """Of simulated files: ten times as many take no more, neither while they are listed nor as items or lines."""
    write(tmp_path, {"few.txt": "", "many.txt": ""})

    def peak(count, *place):
        tracemalloc.start()
        assert sum(1 for _ in all_items([open_source(str(tmp_path.joinpath(*place)))])) == count
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    for kind in ("folder", "list"):
        peaks = []
        for name, count in (("few.txt", 3_000), ("few.txt", 3_000), ("many.txt", 30_000)):  # once to warm up
            names = [f"{number * 7919 % count}.jpg" for number in range(count)]
            monkeypatch.setattr(listing, "_list_local", lambda root, account, names=names: iter(names))
            write(tmp_path, {name: "\n".join(names)})
            peaks.append(peak(count, *([] if kind == "folder" else [name])))
        assert peaks[2] < 1.3 * peaks[1] + 20_000, kind

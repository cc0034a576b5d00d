"""Several corpora packed as one, and the index of what they share against a dictionary."""

import concurrent.futures
import hashlib
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.corpus.table import Table, complete
from pipeline.errors import EnvironmentTrouble, UsageError
from pipeline.packing import merging
from pipeline.packing.manifest import JOINED
from pipeline.packing.merging import shared_contents
from stages.pack import Pack
from tests.conftest import make_photos
from tests.corpora import (
    caption,
    deal_corpus,
    description,
    item,
    pack,
    small_corpus,
    translation,
    write_table,
)

PHOTOS = 5


@pytest.fixture
def photos(tmp_path):
    return make_photos(tmp_path / "photos", PHOTOS)


@pytest.fixture
def corpus(tmp_path, photos):
    return small_corpus(tmp_path / "corpus", photos)


def united(*corpora, output):
    return Pack(tuple(map(str, corpora)), output=str(output), image_size=32)


@pytest.fixture
def published(tmp_path, photos):
    """Descriptions of two of the photos under other names and in another order, and a photo of its own."""
    (own,) = make_photos(tmp_path / "more", 1, size=(50, 30))
    away = tmp_path / "where nobody is"
    items = [
        item(own, "own", size=(50, 30)),
        {**item(photos[2], "b"), "uri": str(away / "b.jpg")},
        {**item(photos[0], "a"), "uri": str(away / "a.jpg")},
    ]
    views = [("own", "Of its own."), ("b", "Published b."), ("a", "Published a."), ("a", "Seen: photo-00000.jpg.")]
    return deal_corpus(
        tmp_path / "published",
        items=items,
        captions=[caption("a", "Photo photo-00000.jpg."), caption("a", "Another.", 1)],
        descriptions=[description(item_id, text) for item_id, text in views],
        translations=[translation("a#en#1", "de", "Foto.")],
    )


def test_published_descriptions_join_ones_own(corpus, published):
    rows = pack(united(corpus, published, output=corpus), corpus)
    assert [row["item_id"] for row in rows] == [
        "corpus/photo-00000.jpg",
        "corpus/photo-00001.jpg",
        "corpus/photo-00002.jpg",
        "corpus/photo-00004.jpg",
        "published/own",
    ]
    first = rows[0]
    assert [each["text"] for each in first["descriptions"]] == ["Seen: photo-00000.jpg.", "Published a."]
    assert [(each["caption_id"], each["text"]) for each in first["captions"]] == [
        ("corpus/photo-00000.jpg#en#0", "Photo photo-00000.jpg."),
        ("published/a#en#1", "Another."),
        ("corpus/photo-00000.jpg#en#0>de", "Foto."),
    ]
    assert [each["text"] for each in rows[2]["descriptions"]] == ["Published b."]
    manifest = Table(corpus, "training").manifest
    assert (manifest["merged"], manifest["without_text"], len(manifest["shards"])) == (2, 1, 5)
    assert manifest["dropped"]["de"]["pairs"] == 4
    assert set(manifest["parents"]) == {f"{name}/{table}" for name in ("corpus", "published") for table in JOINED}


def test_media_are_read_from_the_corpus_that_has_them(tmp_path, corpus, published, photos):
    """The published corpus comes first and its media are not here: those of one's own are."""
    rows = pack(united(published, corpus, output=tmp_path / "out"), tmp_path / "out")
    by_id = {row["item_id"]: row for row in rows}
    assert list(by_id) == [
        "published/own",
        "published/b",
        "published/a",
        "corpus/photo-00001.jpg",
        "corpus/photo-00004.jpg",
    ]
    assert by_id["published/a"]["uri"] == str(photos[0]) and by_id["published/a"]["media"]
    assert [each["text"] for each in by_id["published/a"]["descriptions"]] == ["Published a.", "Seen: photo-00000.jpg."]
    assert Table(tmp_path / "out", "training").manifest["settings"]["corpora"] == [str(published), str(corpus)]
    assert not Table(tmp_path / "out", "training").failures()


def test_the_first_of_equal_items_takes_in_those_of_other_corpora(tmp_path, photos):
    def twice(name, word):
        rows = [item(photos[0], "x"), item(photos[1], "y"), item(photos[0], "z")]
        texts = [caption(row["item_id"], f"{word} {row['item_id']}.") for row in rows]
        return deal_corpus(tmp_path / name, items=rows, captions=texts)

    both = [twice("one", "Mine"), twice("two", "Theirs")]
    rows = pack(united(*both, output=tmp_path / "out"), tmp_path / "out")
    assert {row["item_id"]: [each["text"] for each in row["captions"]] for row in rows} == {
        "one/x": ["Mine x.", "Theirs x.", "Theirs z."],
        "one/y": ["Mine y.", "Theirs y."],
        "one/z": ["Mine z."],
    }


def test_the_other_corpus_has_changed(corpus, published):
    both = united(corpus, published, output=corpus)
    pack(both, corpus)
    write_table(published, "translations", [[], [translation("a#en#1", "de", "Anders.")]])
    assert "Anders." in [each["text"] for each in pack(both, corpus)[0]["captions"]]


def test_a_corpus_that_changes_while_it_is_packed(corpus, published):
    both = united(corpus, published, output=corpus).with_snapshot()
    write_table(published, "translations", [[], [translation("a#en#1", "de", "Anders.")]])
    with pytest.raises(EnvironmentTrouble, match="published was changed while it was packed"):
        pack(both, corpus)
    assert not complete(corpus, "training")


def test_folders_of_one_name(tmp_path, corpus):
    shutil.copytree(corpus, tmp_path / "else" / "corpus")
    with pytest.raises(UsageError, match="two folders are named corpus"):
        united(corpus, tmp_path / "else" / "corpus", output=corpus).check(print)


def test_failures_have_the_ids_of_the_rows(corpus, published, photos):
    photos[1].unlink()
    both = united(corpus, published, output=corpus)
    rows = pack(both, corpus)
    (failure,) = Table(corpus, "training").failures()
    assert (failure["id"], failure["error"]) == ("corpus/photo-00001.jpg", "missing") and len(rows) == 4
    make_photos(photos[0].parent, PHOTOS)
    assert len(pack(both, corpus)) == 5


CONTENTS = [*(hashlib.sha256(bytes([number])).hexdigest() for number in range(8)), "00" * 32, "ab" * 31 + "00"]


def corpora_of(folder, parts, shard_size=2):
    return [
        deal_corpus(
            folder / f"c{number}",
            shard_size,
            items=[item(folder / "none", f"{row}", sha256=content) for row, content in enumerate(part)],
        )
        for number, part in enumerate(parts)
    ]


def find(shared, contents):
    return shared.find(np.array([bytes.fromhex(content) for content in contents], "S32"))


@settings(max_examples=20)
@given(
    st.lists(st.lists(st.sampled_from(CONTENTS), max_size=7), min_size=2, max_size=4),
    st.integers(1, 4),
    st.integers(1, 5),
)
def test_the_index_agrees_with_a_dictionary(tmp_path_factory, parts, shard_size, step):
    folder = tmp_path_factory.mktemp("contents")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(merging, "STEP", step)
        shared = shared_contents(corpora_of(folder, parts, shard_size), folder / "index", "stamp")
    expected = {content: [] for content in CONTENTS}
    for number, part in enumerate(parts):
        for row, content in enumerate(part):
            expected[content].append((number, row // shard_size, row % shard_size))
    merged = 0
    for places in expected.values():
        merged += sum(corpus != places[0][0] for corpus, _, _ in places)
        if len({corpus for corpus, _, _ in places}) < 2:
            places.clear()
    assert find(shared, CONTENTS) == list(expected.values())
    assert shared.merged == merged


def test_the_index_is_built_once_for_a_stamp(tmp_path):
    corpora = corpora_of(tmp_path, [CONTENTS[:3], CONTENTS[2:4]])
    for _ in range(2):
        assert find(shared_contents(corpora, tmp_path / "index", "one"), CONTENTS[2:3]) == [[(0, 1, 0), (1, 0, 0)]]
    before = (tmp_path / "index" / "shared").stat().st_mtime_ns
    shared_contents(corpora, tmp_path / "index", "one")
    assert (tmp_path / "index" / "shared").stat().st_mtime_ns == before
    other = corpora_of(tmp_path / "other", [CONTENTS[:3], CONTENTS[:1]])
    shared = shared_contents(other, tmp_path / "index", "two")
    assert find(shared, [CONTENTS[0], CONTENTS[2]]) == [[(0, 0, 0), (1, 0, 0)], []]


def test_an_interrupted_build_starts_again(tmp_path):
    corpora = corpora_of(tmp_path, [CONTENTS[:3], CONTENTS[2:4]])
    shared_contents(corpora, tmp_path / "index", "one")
    (tmp_path / "index" / "index.json").unlink()
    for name in ("shared", "all"):
        (tmp_path / "index" / name).write_bytes(b"half")
    assert find(shared_contents(corpora, tmp_path / "index", "one"), CONTENTS[2:3]) == [[(0, 1, 0), (1, 0, 0)]]
    assert not (tmp_path / "index" / "all").exists()


def test_processes_that_start_at_once_build_one_index(tmp_path):
    corpora = corpora_of(tmp_path, [CONTENTS[:3], CONTENTS[2:4]])
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        opened = list(pool.map(lambda _: shared_contents(corpora, tmp_path / "index", "one"), range(4)))
    assert [find(shared, CONTENTS[2:3]) for shared in opened] == [[[(0, 1, 0), (1, 0, 0)]]] * 4

"""Contents that several corpora share, and that are in two splits of which one is held out."""

import collections
import concurrent.futures
import hashlib
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import UsageError
from pipeline.packing.contents import refuse_leaks, shared_contents
from tests.conftest import make_photos
from tests.corpora import deal_corpus, item

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
    return [shared.find(bytes.fromhex(content)) for content in contents]


@settings(max_examples=20)
@given(st.lists(st.lists(st.sampled_from(CONTENTS), max_size=7), min_size=2, max_size=4), st.integers(1, 4))
def test_the_index_agrees_with_a_dictionary(tmp_path_factory, parts, shard_size):
    folder = tmp_path_factory.mktemp("contents")
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


def test_processes_that_start_at_once_build_one_index_for_a_stamp(tmp_path):
    corpora = corpora_of(tmp_path, [CONTENTS[:3], CONTENTS[2:4]])
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        opened = list(pool.map(lambda _: shared_contents(corpora, tmp_path / "index", "one"), range(4)))
    assert [find(shared, CONTENTS[2:3]) for shared in opened] == [[[(0, 1, 0), (1, 0, 0)]]] * 4
    other = corpora_of(tmp_path / "other", [CONTENTS[:3], CONTENTS[:1]])
    assert find(shared_contents(other, tmp_path / "index", "one"), CONTENTS[:1]) == [[]]
    shared = shared_contents(other, tmp_path / "index", "two")
    assert find(shared, [CONTENTS[0], CONTENTS[2]]) == [[(0, 0, 0), (1, 0, 0)], []]


def peak_bytes(work):
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("check", [refuse_leaks, lambda corpora: shared_contents(corpora, corpora[0] / "index", "one")])
def test_memory_does_not_grow_with_the_number_of_items(tmp_path, check):
    peaks = []
    for shards in (4, 40):
        contents = [hashlib.sha256(b"%d" % number).hexdigest() for number in range(200 * shards)]
        rows = [item("none", str(number), "test", sha256=content) for number, content in enumerate(contents)]
        corpora = [deal_corpus(tmp_path / f"{shards}" / name, 200, items=rows) for name in ("a", "b")]
        peaks.append(peak_bytes(lambda corpora=corpora: check(corpora)))
    assert peaks[1] < peaks[0] + 500_000  # 7,200 items more in each corpus


def test_across_corpora_the_ids_have_the_name_of_their_corpus(tmp_path):
    photos = make_photos(tmp_path / "photos", 3)
    first = deal_corpus(tmp_path / "first", items=[item(photos[0]), item(photos[1])])
    second = deal_corpus(tmp_path / "second", items=[item(photos[2]), item(photos[1], split="test")])
    refuse_leaks([first])
    refuse_leaks([second])
    for both in ([first, second], [second, first]):
        with pytest.raises(UsageError, match=r"1 item.*train item first/photo-00001\.jpg .* second/photo-00001\.jpg"):
            refuse_leaks(both)


ROWS = st.lists(  # "": without media
    st.tuples(st.sampled_from(["", *CONTENTS[:5]]), st.sampled_from(["train", "train", "test", "val", "dev"])),
    max_size=9,
)


@settings(max_examples=60)
@given(st.lists(ROWS, min_size=1, max_size=3))
def test_leaks_are_those_of_a_naive_comparison(tmp_path_factory, parts):
    folder, corpora, splits = tmp_path_factory.mktemp("leaks"), [], collections.defaultdict(list)
    for number, part in enumerate(parts):
        rows = [item(folder / "none", f"{row}", split, sha256=content) for row, (content, split) in enumerate(part)]
        corpora.append(deal_corpus(folder / f"c{number}", items=rows))
        for content, split in part:
            splits[content].append(split)
    splits.pop("", None)
    leaks = 0
    for of_content in splits.values():
        held_out = [split for split in of_content if split != "train"]
        leaks += sum(split != held_out[0] for split in of_content) if held_out else 0
    if not leaks:
        refuse_leaks(corpora)
        return
    with pytest.raises(UsageError) as raised:
        refuse_leaks(corpora)
    assert str(raised.value).startswith(f"{leaks:,} item(s)")
    assert str(raised.value).count("is the same as") == min(leaks, 3)

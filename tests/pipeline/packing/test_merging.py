"""The index of what several corpora share, against a dictionary."""

import concurrent.futures
import hashlib
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.packing.contents import refuse_leaks, shared_contents
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

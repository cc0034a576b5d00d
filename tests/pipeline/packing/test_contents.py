"""The index of what several corpora have, against a plain dictionary."""

import hashlib
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.packing.merging import shared_contents
from tests.pipeline.packing.corpora import item, write_corpus

CONTENTS = [*(hashlib.sha256(bytes([number])).hexdigest() for number in range(8)), "00" * 32, "ab" * 31 + "00"]


def corpora_of(folder, parts, shard_size=2):
    return [
        write_corpus(
            folder / f"c{number}",
            shard_size,
            items=[item(folder / "none", f"{row}", sha256=content) for row, content in enumerate(part)],
        )
        for number, part in enumerate(parts)
    ]


def found(shared, contents):
    wanted = np.array([bytes.fromhex(content) for content in contents], "S32")
    return [[tuple(place) for place in places.tolist()] for places in shared.find(wanted)]


@settings(max_examples=20)
@given(st.lists(st.lists(st.sampled_from(CONTENTS), max_size=7), min_size=2, max_size=4), st.integers(1, 4))
def test_as_a_dictionary_has_it(tmp_path_factory, parts, shard_size):
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
    assert found(shared, CONTENTS) == list(expected.values())
    assert shared.merged == merged


def test_it_is_made_once_for_what_lies_there(tmp_path):
    corpora = corpora_of(tmp_path, [CONTENTS[:3], CONTENTS[2:4]])
    for _ in range(2):
        assert found(shared_contents(corpora, tmp_path / "index", "one"), CONTENTS[2:3]) == [[(0, 1, 0), (1, 0, 0)]]
    before = (tmp_path / "index" / "keys").stat().st_mtime_ns
    shared_contents(corpora, tmp_path / "index", "one")
    assert (tmp_path / "index" / "keys").stat().st_mtime_ns == before
    other = corpora_of(tmp_path / "other", [CONTENTS[:3], CONTENTS[:1]])
    shared = shared_contents(other, tmp_path / "index", "two")
    assert found(shared, [CONTENTS[0], CONTENTS[2]]) == [[(0, 0, 0), (1, 0, 0)], []]


def test_a_half_made_index_is_made_anew(tmp_path):
    corpora = corpora_of(tmp_path, [CONTENTS[:3], CONTENTS[2:4]])
    shared_contents(corpora, tmp_path / "index", "one")
    (tmp_path / "index" / "index.json").unlink()
    (tmp_path / "index" / "keys").write_bytes(b"half")
    (tmp_path / "index" / "buckets").mkdir()
    assert found(shared_contents(corpora, tmp_path / "index", "one"), CONTENTS[2:3]) == [[(0, 1, 0), (1, 0, 0)]]
    assert not (tmp_path / "index" / "buckets").exists()


@pytest.mark.parametrize("workers", [4])
def test_workers_that_start_at_once(tmp_path, workers):
    corpora = corpora_of(tmp_path, [CONTENTS[:3], CONTENTS[2:4]])
    answers = []

    def ask():
        answers.append(found(shared_contents(corpora, tmp_path / "index", "one"), CONTENTS[2:3]))

    threads = [threading.Thread(target=ask) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [[[(0, 1, 0), (1, 0, 0)]]] * workers

"""Counts over shards, against the same counted in plain Python."""

import statistics

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from pipeline.corpus.counting import Copies, flattened, median, scan, values
from pipeline.corpus.table import Table
from tests.corpora import item, write_corpus


@given(st.dictionaries(st.integers(0, 5_000), st.integers(1, 9), min_size=1))
def test_the_median_from_counts_is_that_of_the_values(counts):
    assert median(counts) == statistics.median_low(value for value, count in counts.items() for _ in range(count))


def test_copies_and_rare_values_are_counted_over_shards(tmp_path):
    hashes = ["aa", "bb", "aa", "cc", "dd", "dd", "aa"]
    rows = [item(f"{i}.png", sha256=head.ljust(64, "0"), source=head) for i, head in enumerate(hashes)]
    table, copies = Table(write_corpus(tmp_path, items=[rows[:2], [], rows[2:]]), "items"), Copies()
    scan(table, [copies])
    assert copies.totals() == (5, 2)
    assert values(table, "source", limit=2) == {("aa",): 3, ("bb",): 1, ("(others)",): 3}


def test_lists_are_flattened_with_the_key_of_their_row():
    rows = pa.table({"view": ["a", "b", "c"], "flags": [["x", "y"], [], ["x"]]})
    both = flattened("view", "flags")(pa.concat_tables([rows, rows.slice(2)]))
    assert both.to_pydict() == {"view": ["a", "a", "c", "c"], "flags": ["x", "y", "x", "x"]}

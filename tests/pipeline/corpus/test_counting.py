"""Counts over shards, against the same counted in plain Python."""

import statistics

import pyarrow as pa
import pyarrow.compute as pc
from hypothesis import given
from hypothesis import strategies as st

from pipeline.corpus.counting import Copies, count_rows, flattened, median, num_words, scan
from pipeline.corpus.table import Table
from tests.corpora import item, write_corpus


@given(st.dictionaries(st.integers(0, 5_000), st.integers(1, 9), min_size=1))
def test_the_median_from_counts_is_that_of_the_values(counts):
    assert median(counts) == statistics.median_low(value for value, count in counts.items() for _ in range(count))


def test_copies_are_counted_over_shards(tmp_path):
    hashes = ["aa", "bb", "aa", "cc", "dd", "dd", "aa"]
    rows = [item(f"{i}.png", sha256=head.ljust(64, "0")) for i, head in enumerate(hashes)]
    copies = Copies()
    scan(Table(write_corpus(tmp_path, items=[rows[:2], [], rows[2:]]), "items"), [copies])
    assert copies.totals() == (5, 2)


def test_a_column_of_many_values_is_told_apart_up_to_a_limit(tmp_path):
    rows = [item(f"{i}.png", source=f"by {i % 6}") for i in range(12)]
    table = Table(write_corpus(tmp_path, items=[rows[:4], rows[4:]]), "items")
    counts = count_rows(table, lambda shard: shard.select(["source"]), limit=4)
    assert counts == {("by 0",): 2, ("by 1",): 2, ("by 2",): 2, ("by 3",): 2, ("(others)",): 4}


@given(st.lists(st.text(st.sampled_from("ab é\t\n\r\u00a0中"), max_size=12), max_size=20), st.data())
def test_words_are_those_of_the_regex(texts, data):
    cut = data.draw(st.integers(0, len(texts)))
    column = pa.chunked_array([texts[:cut], texts[cut:]], pa.string())
    start = data.draw(st.integers(0, len(texts)))
    for part in (column, column.slice(start), column.slice(start, 1)):
        assert num_words(part).to_pylist() == pc.count_substring_regex(part, r"\S+").to_pylist()


def test_lists_are_flattened_with_the_key_of_their_row():
    rows = pa.table({"view": ["a", "b", "c"], "flags": [["x", "y"], [], ["x"]]})
    whole = pa.concat_tables([rows, rows.slice(2)])
    assert flattened("view", "flags")(whole).to_pydict() == {
        "view": ["a", "a", "c", "c"],
        "flags": ["x", "y", "x", "x"],
    }

"""Qualities, histograms, best and worst pairs, against the same counted in plain Python."""

import statistics

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.card.numbers import BINS, EXAMPLES, Examples, by_language, count_tables
from pipeline.corpus.schema import SCHEMAS
from pipeline.corpus.table import Table
from tests.corpora import translation, write_corpus

FLAGS = st.sets(st.sampled_from(["copied", "meaning", "quotes_removed", "a_note_of_tomorrow"]))
PAIRS = st.lists(st.tuples(st.one_of(st.none(), st.integers(0, 10_000)), FLAGS), min_size=1, max_size=60)


@given(PAIRS, st.integers(1, 20))
def test_translations_are_counted_whatever_their_shards(tmp_path_factory, pairs, size):
    rows = [
        translation(f"{i:03}", quality=None if step is None else step / 10_000, flags=sorted(flags))
        for i, (step, flags) in enumerate(pairs)
    ]
    shards = [rows[start : start + size] for start in range(0, len(rows), size)]
    corpus = write_corpus(tmp_path_factory.mktemp("c"), translations=shards)
    counts = count_tables({"translations": Table(corpus, "translations")})["translations"]
    german = by_language(counts["qualities"])["de"]
    assert (german.pairs, german.kept) == (len(pairs), sum(not flags & {"copied", "meaning"} for _, flags in pairs))
    measured = [step / 10_000 for step, _ in pairs if step is not None]
    if measured:
        mean, median = german.summary().split(" / ")
        assert float(mean) == pytest.approx(statistics.mean(measured), abs=6e-4)
        assert float(median) == pytest.approx(statistics.median_low(measured), abs=6e-4)
        assert len(german.histogram()) == BINS
    else:
        assert german.summary() == german.histogram() == "" and not counts["examples"].best


@given(st.lists(st.tuples(st.integers(0, 14), st.integers(0, 3)), min_size=1, max_size=150), st.integers(1, 90))
def test_best_and_worst_are_distinct_pairs_of_texts(pairs, size):
    """Many pairs of few texts, so that repeated ones must not hide others."""
    rows = [
        translation(f"{i:03}", quality=step / 10, source_text=f"source {text:02}", text=f"text {text % 5}")
        for i, (text, step) in enumerate(pairs)
    ]
    examples = Examples()
    for start in range(0, len(rows), size):
        examples.add(pa.Table.from_pylist(rows[start : start + size], SCHEMAS["translations"]))
    distinct = {(step, text) for text, step in pairs}
    for chosen, sign in ((examples.best["de"], -1), (examples.worst["de"], 1)):
        expected = sorted(distinct, key=lambda pair: (sign * pair[0], pair[1]))[:EXAMPLES]
        ranked = [(round(row["quality"] * 10), int(row["source_text"][-2:])) for row in chosen.to_pylist()]
        assert ranked == expected

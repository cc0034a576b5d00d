"""The numbers of a card, against the same counted in plain Python."""

import collections
import statistics

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.card.numbers import (
    BINS,
    EXAMPLES,
    Examples,
    by_language,
    count_tables,
    spreads,
    totals,
)
from pipeline.corpus.schema import SCHEMAS
from pipeline.corpus.table import Table
from tests.corpora import caption, description, item, translation, write_corpus


def counted(corpus, *names):
    return count_tables({name: Table(corpus, name) for name in names})


def naive(numbers):
    return f"{min(numbers):,} / {statistics.median_low(numbers):,} / {max(numbers):,}"


def test_numbers_of_items_and_texts_are_those_of_the_rows(tmp_path):
    items, texts, captions = [], [], []
    for number in range(60):
        name, media = f"{number}.png", "video" if number % 4 == 0 else "image"
        duration = number / 2 if media == "video" else None
        size = {"width": 0 if number == 7 else 100 + number, "height": 50 + 2 * number}
        row = item(name, media_type=media, duration_s=duration, source=f"by {number % 7}", **size)
        items.append(row | {"sha256": "" if number == 9 else f"{number // 2 % 20:02x}".ljust(64, "0")})
        for view in ("short", "detail"):
            flags = ["cut", "loop"] if number % 5 == 0 else ["cut"] if number % 5 == 1 and view == "detail" else []
            text = " ".join(["wörd"] * (number % 7 + 1))
            texts.append(description(name, text, view, flags=flags, prompt_tokens=number))
        captions += [caption(name, "x" * (number + 1), language=language) for language in ("en", "zh")[: number % 3]]
    shards = {"items": [items[:11], items[11:12], items[12:]], "descriptions": [texts[:22], texts[22:24], texts[24:]]}
    corpus = write_corpus(tmp_path, captions=[captions, [], []], **shards)
    numbers = counted(corpus, "items", "captions", "descriptions")

    counts = numbers["items"]
    for kind in ("image", "video"):
        own = [row for row in items if row["media_type"] == kind]
        assert counts["media"][kind,] == len(own)
        assert spreads(counts["widths"])[kind,] == naive([row["width"] for row in own if row["width"]])
    assert totals(counts["durations"]) == {("video",): sum(row["duration_s"] or 0 for row in items)}
    assert counts["copies"].totals() == (59, 20) and counts["without_media"][(True,)] == 1
    counts = numbers["descriptions"]
    for view in ("short", "detail"):
        own = [row for row in texts if row["view"] == view]
        assert spreads(counts["words"])[view,] == naive([len(row["text"].split()) for row in own])
        assert spreads(counts["characters"])[view,] == naive([len(row["text"]) for row in own])
        assert totals(counts["prompt_tokens"])[view,] == sum(row["prompt_tokens"] for row in own)
        assert counts["flags"][view, "cut"] == sum("cut" in row["flags"] for row in own)
    counts = numbers["captions"]
    assert totals(counts["covered"])[()] == len({row["item_id"] for row in captions})
    assert counts["languages"] == collections.Counter((row["language"], row["origin"]) for row in captions)


FLAGS = st.sets(st.sampled_from(["copied", "meaning", "quotes_removed", "a_note_of_tomorrow"]))
PAIRS = st.lists(st.tuples(st.one_of(st.none(), st.integers(0, 10_000)), FLAGS), min_size=1, max_size=60)


@given(PAIRS, st.integers(1, 20))
def test_translations_are_counted_whatever_their_shards(tmp_path_factory, pairs, size):
    rows = [
        translation(f"{i:03}", quality=None if step is None else step / 10_000, flags=sorted(flags))
        for i, (step, flags) in enumerate(pairs)
    ]
    shards = [rows[start : start + size] for start in range(0, len(rows), size)]
    counts = counted(write_corpus(tmp_path_factory.mktemp("c"), translations=shards), "translations")["translations"]
    german = by_language(counts["qualities"])["de"]
    passed = [not flags & {"copied", "meaning"} for _, flags in pairs]
    assert (german.pairs, german.kept) == (len(pairs), sum(passed))
    measured = [step / 10_000 for step, _ in pairs if step is not None]
    if measured:
        mean, median = german.summary().split(" / ")
        assert float(mean) == pytest.approx(statistics.mean(measured), abs=6e-4)
        assert float(median) == pytest.approx(statistics.median_low(measured), abs=6e-4)
        for is_kept in (False, True):
            places = [
                min(19, step // 500)
                for (step, _), p in zip(pairs, passed, strict=True)
                if step is not None and p == is_kept
            ]
            assert german.bars[int(is_kept)].tolist() == [places.count(place) for place in range(BINS)]
    else:
        assert german.summary() == "" and not german.bars.any()


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
        assert [(round(row["quality"] * 10), int(row["source_text"][-2:])) for row in chosen] == expected


def test_pairs_without_a_quality_are_not_ranked():
    examples = Examples()
    examples.add(pa.Table.from_pylist([translation("a", quality=None)], SCHEMAS["translations"]))
    assert not examples.best

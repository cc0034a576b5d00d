"""Shards packed for training, written by hand: their section of the card, and the card of a corpus of nothing else."""

import collections
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from huggingface_hub import DatasetCard
from PIL import Image

from pipeline.card.card import CARD, SHEET
from pipeline.card.training import training_samples
from pipeline.corpus.schema import SCHEMAS
from pipeline.corpus.table import Table, read_json, shard_name, write_json, write_manifest, write_shard
from pipeline.packing.manifest import split_sizes
from stages.verify import verify
from tests.pipeline.card.test_card import HOSTILE, card_of, rows_of
from tests.pipeline.card.test_contact_sheet import caption, item, picture, write_corpus


def jpeg(side: int = 32) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (side, side), "red").save(stream, "JPEG")
    return stream.getvalue()


def training(item_id: str, texts: dict[str, str], split: str = "train", **changed: Any) -> dict[str, Any]:
    """A row of `training`; `texts` by language, German ones translated."""
    captions = [
        {"caption_id": f"{item_id}#{language}#0", "language": language, "text": text, "quality": 1.0}
        | {"origin": "mt" if language == "de" else "human"}
        for language, text in texts.items()
    ]
    row = {"item_id": item_id, "split": split, "media_type": "image", "media": jpeg(), "num_frames": 1}
    row |= {
        "uri": f"/home/me/{item_id}",
        "sha256": "00",
        "source": "photos",
        "license": "CC BY 2.0",
        "captions": captions,
    }
    return row | {"descriptions": [{"view": "short", "text": f"short of {item_id}"}]} | changed


def write_training(
    corpus: Path, shards: list[list[dict[str, Any]]], extra: dict | None = None, **settings: Any
) -> Path:
    folder = corpus / "training"
    folder.mkdir(parents=True, exist_ok=True)
    entries = [
        write_shard(folder / shard_name(i, len(shards)), pa.Table.from_pylist(rows, SCHEMAS["training"]))
        for i, rows in enumerate(shards)
    ]
    told = {"corpora": ["/home/me/first", "/home/me/second/"], "media": "pixels", "image_size": 384, "frames": 8}
    write_manifest(
        corpus,
        "training",
        stage="pack",
        settings=told | settings,
        fingerprint="0123456789abcdef",
        tools={"python": "3.11"},
        parents={},
        extra=extra or {},
        shards=entries,
        failures=[],
    )
    return corpus


def source(name: str, licenses: dict[str, int], captioner: str = "", translators: dict | None = None) -> dict[str, Any]:
    """What a manifest tells of one corpus that was packed."""
    return {"name": name, "licenses": licenses, "captioner": captioner, "translators": translators or {}}


def packed(folder: Path, **settings: Any) -> Path:
    """Nine items in three shards, one of them empty: a test split, videos, two languages."""
    rows = [
        training(
            f"{i}.png",
            {"en": f"an English text of {i}", "de": f"ein deutscher Text zu {i}"} if i % 2 else {"en": f"only {i}"},
            "test" if i % 3 == 0 else "train",
            media_type="video" if i == 8 else "image",
            num_frames=8 if i == 8 else 1,
            descriptions=[] if i == 1 else [{"view": "short", "text": f"short of {i}"}],
        )
        for i in range(9)
    ]
    return write_training(folder / "packed", [rows[:4], [], rows[4:]], **settings)


def test_splits_languages_and_media_are_those_of_the_rows(tmp_path):
    corpus = packed(tmp_path)
    rows = list(Table(corpus, "training").rows())
    card = card_of(corpus)
    for split, items, captions, descriptions in rows_of(card, "split"):
        own = [row for row in rows if row["split"] == split]
        assert int(items) == len(own) > 0
        assert int(captions) == sum(len(row["captions"]) for row in own)
        assert int(descriptions) == sum(len(row["descriptions"]) for row in own)
    counts = collections.Counter(
        (caption["language"], caption["origin"], row["split"]) for row in rows for caption in row["captions"]
    )
    for language, origin, test, train in rows_of(card, "language | origin"):
        assert (int(test), int(train)) == (counts[language, origin, "test"], counts[language, origin, "train"])
    assert rows_of(card, "media") == [
        ["image", "8", "8", "1 / 1 / 1", "1 / 1 / 1"],
        ["video", "1", "1", "8 / 8 / 8", "1 / 1 / 1"],
    ]
    assert "a JPEG whose shorter side is at most 384 pixels" in card and "up to 8 frames" in card


def test_references_are_told_as_such(tmp_path):
    row = training("a.png", {"en": "text"}, media=None, num_frames=0)
    card = card_of(write_training(tmp_path / "packed", [[row]], media="reference"))
    assert rows_of(card, "media") == [["image", "1", "0", "0 / 0 / 0"]]
    assert "Its picture or video is not in the row" in card
    assert "The pictures and videos are not in this folder" in card


def test_what_the_filters_dropped_and_at_which_thresholds(tmp_path):
    dropped = {
        "de": {"pairs": 2_000, "kept": 1_900, "wrong_language": 80, "meaning": 40, "copied": 0},
        "cs": {"pairs": 10, "kept": 10},
    }
    filters = {"default": {"wrong_language": 0.5, "meaning": 0.25}, "cs": {"meaning": None}}
    card = card_of(packed(tmp_path, extra={"dropped": dropped, "merged": 1, "without_text": 1_200}, filters=filters))
    assert rows_of(card, "language | pairs | passed the filters |") == [["cs", "10", "10"], ["de", "2,000", "1,900"]]
    assert "of equal texts of several corpora one is packed" in card and "| kept |" not in card
    assert rows_of(card, "language | meaning | wrong_language |") == [
        ["cs", "0", "0"],
        ["de", "40 (2.0%)", "80 (4.0%)"],
    ]
    assert "**wrong_language**: " in card and "**copied**" not in card
    assert rows_of(card[card.index("Thresholds that") :], "language") == [["cs", "off", ""], ["default", "0.25", "0.5"]]
    assert "filters" not in card.split("## Provenance")[1]
    assert "1 item became part of another" in card and "1,200 items had no text" in card


def test_licences_and_models_of_what_was_packed_are_told(tmp_path):
    opus = {"name": "/home/me/opus-mt", "revision": "abc", "license": "cc-by-4.0"}
    nllb = {"name": "nllb", "revision": "", "license": "cc_by_nc4"}
    sources = [
        source("photos|", {"CC BY 2.0": 1_200, "": 2_000}, "embedded:efficientnet-lite0", {"fr": nllb, "de": opus}),
        source("clips", {"CC0": 7}, "/home/me/a-model", {"cs": opus | {"license": ""}, "ja": nllb}),
        source("drawings", {"CC0": 8}),
    ]
    card = card_of(packed(tmp_path, extra={"sources": sources}))
    told = card[card.index("### What it was packed from") :].split("## Licences")[0]
    assert rows_of(told, "corpus | licence") == [
        [r"photos\|", "not stated", "2,000"],
        [r"photos\|", "CC BY 2.0", "1,200"],
        ["clips", "CC0", "7"],
        ["drawings", "CC0", "8"],
    ]
    assert rows_of(told, "corpus | captioner") == [
        [r"photos\|", "embedded:efficientnet-lite0"],
        ["clips", "…/a-model"],
    ]
    assert r"No multimodal LLM wrote the descriptions of photos\|." in told
    assert rows_of(told, "corpus | language | translator") == [
        [r"photos\|", "de", "…/opus-mt", "abc", "cc-by-4.0"],
        [r"photos\|", "fr", "nllb", "", "cc_by_nc4"],
        ["clips", "cs", "…/opus-mt", "abc", "not stated"],
        ["clips", "ja", "nllb", "", "cc_by_nc4"],
    ]
    assert told.count("Not for commercial use") == 1
    assert "The translations into fr, ja were made by nllb" in told
    assert r"Packed for training from photos\|, clips, drawings." in card
    assert rows_of(card, "licence | items") == [["CC BY 2.0", "9"]]  # of the rows themselves
    assert "/home/me" not in card


def test_sources_without_models_need_no_warning(tmp_path):
    card = card_of(packed(tmp_path, extra={"sources": [source("photos", {"": 9}, "a-model")]}))
    assert rows_of(card, "corpus | captioner") == [["photos", "a-model"]]
    assert not re.search("WARNING|Who translated", card)


def test_items_without_a_licence_are_left_to_the_user(tmp_path):
    rows = [training("a.png", {"en": "x"}, license=""), training("b.png", {"en": "y"})]
    card = card_of(write_training(tmp_path / "packed", [rows]))
    assert rows_of(card, "licence | items") == [["not stated", "1"], ["CC BY 2.0", "1"]]
    assert "states no licence for 1 item:" in card


def test_an_older_manifest_and_no_pairs(tmp_path):
    card = card_of(packed(tmp_path))
    assert "What it was packed from" not in card and "from …/first, …/second." in card
    assert "No translations were packed" in card and "became part" not in card and "no row" not in card
    nothing = card_of(write_training(tmp_path / "none", [[]]))
    assert "Nothing could be packed" in nothing and "no items · no captions." in nothing


def test_a_corpus_of_training_shards_alone_has_a_card(tmp_path):
    corpus = packed(tmp_path)
    card = card_of(corpus)
    data = DatasetCard.load(corpus / CARD).data
    assert data.language == ["de", "en"]
    assert data.task_categories == ["image-to-text", "video-text-to-text"]
    assert data.tags[-2:] == ["image-text-retrieval", "video-text-retrieval"]
    assert [config["config_name"] for config in data.configs] == ["training"]
    assert "8 images · 1 video · 13 captions (de, en). Packed for training from …/first, …/second." in card
    assert rows_of(card, "item | media")[0][2:] == ["en: only 0", "short of 0"]
    assert "publish them only where their licences allow it" in card
    assert "/home/me" not in card and SHEET not in card
    assert not (corpus / SHEET).exists()


def test_samples_are_spread_over_the_shards(tmp_path):
    shards = [[training(f"{shard}-{i}", {"en": "x"}) for i in range(size)] for shard, size in enumerate((7, 0, 40, 53))]
    table = Table(write_training(tmp_path, shards), "training")
    ids = [row["item_id"] for row in table.rows()]
    told = [line.split(" | ")[0].strip("| ") for line in training_samples(table, 10, 100).splitlines()[2:]]
    assert told == [ids[i] for i in range(5, 100, 10)]
    assert len(training_samples(table, 500, 100).splitlines()) == 102


def test_a_sample_shows_the_first_text_of_each_language(tmp_path):
    row = training("a.png", {"en": "first", "de": "zuerst"})
    row["captions"].append({**row["captions"][0], "caption_id": "a.png#en#1", "text": "second"})
    table = Table(write_training(tmp_path, [[row]]), "training")
    assert "| de: zuerst — en: first |" in training_samples(table, 1, 100)


def test_texts_cannot_break_out_of_the_section(tmp_path):
    row = training(
        "a|<b>", {HOSTILE: HOSTILE, "en": "\u202e|x|"}, HOSTILE, descriptions=[{"view": "|", "text": HOSTILE}]
    )
    extra = {"dropped": {HOSTILE: {"pairs": 3, "kept": 1, HOSTILE: 2}}}
    card = card_of(write_training(tmp_path / "packed", [[row]], extra, filters={HOSTILE: {HOSTILE: 0.5}}))
    body = card.split("---\n", 2)[2]
    assert "<script" not in body and "\u202e" not in body
    for table in re.findall(r"(?:^\|.*\n)+", body, re.MULTILINE):
        assert len({len(re.split(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1, table


def test_the_snippets_of_the_card_read_the_shards_with_their_pictures(tmp_path):
    corpus = packed(tmp_path)
    first, second = re.findall(r"```python\n(.*?)```", card_of(corpus), re.DOTALL)
    check = """
import io, json
from PIL import Image
print(json.dumps([[row["item_id"], row["captions"][0]["text"], *Image.open(io.BytesIO(row["media"])).size]
                  for row in (rows[0], same[8])]))
"""
    environment = {**os.environ, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"}
    ran = subprocess.run(
        [sys.executable, "-c", f"{first}\n{check}\n{second}\nprint(rows.num_rows)"],
        cwd=corpus,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    *_, told, last = ran.stdout.strip().splitlines()
    assert json.loads(told) == [["0.png", "only 0", 32, 32], ["8.png", "only 8", 32, 32]]
    assert last == "5"


def test_beside_the_tables_it_was_packed_from(tmp_path):
    rows = [item(picture(tmp_path / "a.png", "red"))]
    corpus = write_corpus(tmp_path / "corpus", items=[rows], captions=[[caption("a.png", "two words")]])
    before = card_of(corpus)
    after = card_of(write_training(corpus, [[training("a.png", {"en": "two words", "de": "zwei Wörter"})]]))
    assert rows_of(after, "table") == [*rows_of(before, "table"), ["training", "1", "1"]]
    assert before[before.index("## Captions") : before.index("## Licences")] in after
    assert (corpus / SHEET).exists() and f"]({SHEET})" in after
    assert 'data_files="training/*.arrow"' in after
    assert "in every table but `training`, so tables join" in after


@pytest.mark.parametrize("corpora, told", [(["."], False), ([".", "/home/me/other"], True)])
def test_a_corpus_that_tells_of_itself_does_not_tell_of_itself_again(tmp_path, corpora, told):
    rows = [item(picture(tmp_path / "a.png", "red"))]
    corpus = write_corpus(tmp_path / "corpus", items=[rows], captions=[[caption("a.png", "two words")]])
    extra = {"sources": [source("corpus", {"": 1})]}
    write_training(corpus, [[training("a.png", {"en": "two words"})]], extra, corpora=corpora)
    assert ("### What it was packed from" in card_of(corpus)) == told
    shutil.rmtree(corpus / "items")  # the shards alone, as they may be published
    shutil.rmtree(corpus / "captions")
    assert "### What it was packed from" in card_of(corpus)


def test_how_to_read_it_says_nothing_twice(tmp_path):
    rows = [item(picture(tmp_path / "a.png", "red"))]
    own = write_corpus(tmp_path / "own", items=[rows], captions=[[caption("a.png", "two words")]])
    before = card_of(own)
    write_training(own, [[training("a.png", {"en": "two words"})]])
    for card in (before, card_of(own), card_of(packed(tmp_path))):
        reading = card[card.index("## How to read it") :]
        assert reading.count("The split of an item is its column `split`") == 1
        assert ("joined already" in reading) == (card != before)
        assert "`manifest.json` holds\nthe paths of the inputs and corpora" in reading


def test_hashes_of_what_was_packed_are_no_setting_to_read(tmp_path):
    card = card_of(packed(tmp_path, contents={"first": "0123", "second": "4567"}))
    assert {name for name, _ in rows_of(card, "setting")} == {"corpora", "media", "image_size", "frames"}


@pytest.mark.parametrize("wrong", [None, ("train", "captions"), ("test", "items")])
def test_the_split_sizes_of_a_manifest_are_verified(tmp_path, wrong):
    corpus = packed(tmp_path)
    splits = split_sizes(Table(corpus, "training").shard_paths())
    if wrong:
        splits[wrong[0]][wrong[1]] += 1
    path = corpus / "training" / "manifest.json"
    write_json(path, read_json(path) | {"splits": splits})
    good, problems = verify(corpus)
    assert (len(good), len(problems)) == ((0, 1) if wrong else (1, 0))
    if wrong:
        assert f"{wrong[1]} in split {wrong[0]}, its manifest says" in problems[0]
    Table(corpus, "training").shard_path(2).unlink()
    assert [line.split(" ")[1:3] for line in verify(corpus)[1]] == [["is", "missing:"]]

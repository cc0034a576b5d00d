"""The card as a whole: one golden file, and one test for each thing that protects readers and data."""

import json
import os
import re
import subprocess
import sys
import textwrap

import pytest
from huggingface_hub import DatasetCard

from pipeline.card.card import CARD, SHEET, write_card
from pipeline.errors import UsageError
from tests.corpora import (
    caption,
    description,
    item,
    packed,
    picture,
    source,
    training,
    translation,
    write_corpus,
    write_table,
)

HOSTILE = "a | b\n\n# big <script>alert(1)</script> [x](javascript:1) ![y](z) `code` **bold** &lt; $x$ \\| <b>"
NLLB = {"name": "/home/me/nllb", "revision": "", "license": "CC-BY-NC-4.0"}
OPUS = {"name": "opus-mt", "revision": "abc", "license": "cc-by-4.0"}


def card_of(corpus):
    write_card(corpus)
    return (corpus / CARD).read_text(encoding="utf-8")


def rows_of(card, header):
    """The cells of the first table whose first line begins with `header`."""
    lines = card[card.index(f"\n| {header}") + 1 :].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]


def assert_tables_are_whole(card):
    for table in re.findall(r"(?:^\|.*\n)+", card + "\n", re.MULTILINE):
        assert len({len(re.split(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1, table


def whole_corpus(folder):
    """Every table and every section: pictures, a video, features, flags, failures, two translators, packed training."""
    rows = [item(picture(folder / f"{name}.png", name), license="CC BY 4.0") for name in ("red", "blue")]
    rows += [item("clip.mp4", media_type="video", num_frames=60, duration_s=2.5, width=64, height=48, split="test")]
    rows += [item("features.npy", width=0, height=0, num_frames=8)]
    lost = {"id": "c.png", "stage": "ingest", "error": "missing", "message": "/home/me/c.png: gone", "attempts": 1}
    corpus = folder / "corpus"
    write_table(corpus, "items", [rows[:2], rows[2:]], failures=[lost])
    texts = [description(row["item_id"], f"A {row['item_id']}.", view) for row in rows for view in ("short", "detail")]
    texts[1] |= {"flags": ["cut", "loop"], "finish_reason": "length", "captioner": "/home/me/a-model"}
    write_table(corpus, "descriptions", [texts[:4], texts[4:]], captioner="embedded:a-classifier")
    write_table(corpus, "captions", [[caption("red.png", "A red square."), caption("blue.png", "Blue.")], []])
    pairs = [
        translation(f"{name}.png#en#0", target, quality=0.5) for name in ("red", "blue") for target in ("de", "zh")
    ]
    pairs[1] |= {"flags": ["copied", "quotes_removed"], "text": ""}
    pairs[2] |= {"source_text": "Blue.", "text": "Blau.", "scores": pairs[2]["scores"] | {"quality": 0.9512}}
    settings = {"translators": {"de": OPUS, "zh": NLLB}, "encoders": {"de": "/home/me/labse", "zh": ""}}
    settings["back"] = {"de": NLLB}
    thresholds = {"de": {"copied": 0.7, "low_quality": None}, "zh": {"copied": 0.9}}
    write_table(corpus, "translations", [pairs, []], **settings, thresholds=thresholds)
    extra = {"sources": [source("corpus", {"CC BY 4.0": 4}, "embedded:a-classifier", {"de": OPUS, "zh": NLLB})]}
    extra |= {"dropped": {"de": {"pairs": 2, "kept": 2}, "zh": {"pairs": 2, "kept": 1, "copied": 1}}, "without_text": 1}
    rows = [training("red.png", {"en": "A red square.", "de": "Ein Quadrat."}), training("clip.mp4", {}, "test")]
    return write_table(corpus, "training", [rows, []], extra=extra, corpora=["."], filters={"default": {"copied": 0.8}})


def test_a_card_with_every_section_is_the_golden_one_every_time(tmp_path, request):
    golden = request.path.with_name("golden.md")
    corpus = whole_corpus(tmp_path)
    card = card_of(corpus)
    timeless = re.sub(r"made from \w+", "made from these tables", card)  # manifests have the time they were written at
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(timeless, encoding="utf-8")
    assert timeless == golden.read_text(encoding="utf-8")
    assert "/home/me" not in card and str(tmp_path) not in card
    before = (corpus / SHEET).read_bytes()
    (corpus / SHEET).unlink()
    assert card_of(corpus) == card and (corpus / SHEET).read_bytes() == before
    assert {path.name for path in corpus.iterdir() if path.is_file()} == {CARD, SHEET}


READ_CONFIGS = """
    import json
    main = datasets.load_dataset(os.getcwd(), split="train")
    assert list(main.column_names) == list(rows.column_names) == list(same.column_names)
    print(json.dumps([list(rows["item_id"]), list(same["item_id"]), list(main["item_id"])]))
"""


def test_the_snippets_and_configs_of_a_card_read_the_corpus(tmp_path):
    corpus = packed(tmp_path / "corpus")
    first, second = re.findall(r"```python\n(.*?)```", card_of(corpus), re.DOTALL)
    program = f"{first}\n{textwrap.dedent(READ_CONFIGS)}\n{second}\nprint(rows.num_rows)"
    environment = {**os.environ, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"}
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=corpus, env=environment, capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 0, run.stderr
    *_, configs, rows_of_last_shard = run.stdout.strip().splitlines()
    assert json.loads(configs) == [[f"{i}.png" for i in range(9)]] * 3
    assert rows_of_last_shard == "5"


def test_only_complete_tables_are_in_the_card(tmp_path):
    rows = [item(picture(tmp_path / "a.png"))]
    corpus = write_corpus(tmp_path / "corpus", items=[rows])
    card = card_of(corpus)
    assert "Not described yet" in card and "## Descriptions" not in card and "## Translations" not in card
    write_corpus(corpus, captions=[[]], descriptions=[[]], translations=[[]])
    card = card_of(corpus)
    assert [config["config_name"] for config in DatasetCard.load(corpus / CARD).data.configs] == ["items"]
    assert card.count("None could be made") == 2
    (corpus / "items" / "manifest.json").unlink()
    with pytest.raises(UsageError, match="items is not complete"):
        write_card(corpus)


def test_texts_cannot_break_out_of_the_card(tmp_path):
    row = item(picture(tmp_path / "a.png"), item_id="a|<img src=x>.png", source=HOSTILE, license=HOSTILE)
    failure = {"id": "b|c", "stage": "ingest", "error": "missing", "message": HOSTILE, "attempts": 1, "shard": 0}
    corpus = write_table(tmp_path / "a#b <i> [c]", "items", [[row]], failures=[failure])
    views = {"short": {"name": "short", "prompt": HOSTILE}}
    descriptions = [description(row["item_id"], HOSTILE, captioner="m|<i>", flags=["|<i>"])]
    write_table(corpus, "descriptions", [descriptions], views=views, captioner="m|<i>")
    write_table(corpus, "captions", [[caption(row["item_id"], HOSTILE, language=HOSTILE)]])
    texts = [HOSTILE, "\u202eright to left\u202c", "bell\x07 nul\x00 \x1b[31m", "one\r\ntwo\u2028three", "a" * 20_000]
    pairs = [translation(f"{i}", HOSTILE, text, quality=i / 9, source_text=text) for i, text in enumerate(texts)]
    write_table(corpus, "translations", [pairs], translators={HOSTILE: {"name": HOSTILE, "license": f"{HOSTILE} nc"}})
    extra = {
        "dropped": {HOSTILE: {"pairs": 3, "kept": 1, HOSTILE: 2}},
        "sources": [source(HOSTILE, {HOSTILE: 1}, HOSTILE)],
    }
    row = training("a|<b>", {HOSTILE: HOSTILE}, HOSTILE, descriptions=[{"view": "|", "text": HOSTILE}])
    write_table(corpus, "training", [[row]], extra=extra, filters={HOSTILE: {HOSTILE: 0.5}})
    body = card_of(corpus).split("---\n", 2)[2]
    assert "<script" not in body and "<i" not in body and "<b" not in body
    assert not re.search(r"(?<!\\)\]\(javascript", body)
    assert not re.search(r"^# big", body, re.MULTILINE)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\u202a-\u202e\u2028]", body)
    assert_tables_are_whole(body)
    assert DatasetCard.load(corpus / CARD).data.pretty_name == "a#b <i> [c]"


def test_the_card_says_so_when_no_mllm_wrote_the_descriptions(tmp_path):
    for captioner, warned in (("embedded:efficientnet-lite0", True), ("a-model", False)):
        card = card_of(packed(tmp_path / "packed", {"sources": [source("photos", {"": 9}, captioner)]}))
        assert ("No multimodal LLM wrote the descriptions of photos" in card) == warned


def test_a_corpus_of_training_shards_only(tmp_path):
    corpus = packed(tmp_path / "packed")
    card = card_of(corpus)
    data = DatasetCard.load(corpus / CARD).data
    assert data.language == ["de", "en"]
    assert data.task_categories == ["image-to-text", "video-text-to-text"]

    assert "8 images · 1 video · 13 captions (de, en).\nPacked for training from …/first, …/second." in card
    assert rows_of(card, "split | items") == [["test", "3", "4", "3"], ["train", "6", "9", "5"]]
    assert rows_of(card, "item | media")[0][3:] == ["short", "short of 0", "en: only 0"]
    assert not (corpus / SHEET).exists() and SHEET not in card
    reference = packed(tmp_path / "reference", media="reference")
    assert "is not in the row" in card_of(reference)
    assert "Nothing could be packed" in card_of(write_corpus(tmp_path / "none", training=[[]]))

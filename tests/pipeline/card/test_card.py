import itertools
import json
import os
import re
import statistics
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from huggingface_hub import DatasetCard

import beam_runner
from pipeline.card.card import CARD, SHEET, write_card
from pipeline.errors import UsageError
from tests.pipeline.card.test_contact_sheet import SHARED, caption, description, item, picture, write_corpus

HOSTILE = "a | b\n\n# big <script>alert(1)</script> [x](javascript:1) ![y](z) `code` **bold** &lt; $x$ \\| <b>"


def corpus_of_two(tmp_path: Path, text: str = "A red square.", **settings: object) -> Path:
    """Two pictures in two shards, two views, human captions of one of them."""
    rows = [item(picture(tmp_path / f"{name}.png", name)) for name in ("red", "blue")]
    told = [
        [description(row["item_id"], text, "short"), description(row["item_id"], "One. Two, three.", "detail")]
        for row in rows
    ]
    captions = [[caption("red.png", "a human wrote this")], []]
    return write_corpus(
        tmp_path / "corpus", settings, items=[[row] for row in rows], captions=captions, descriptions=told
    )


def card_of(corpus: Path) -> str:
    write_card(corpus)
    return (corpus / CARD).read_text(encoding="utf-8")


def rows_of(card: str, header: str) -> list[list[str]]:
    """The cells of the first table whose first line begins with `header`."""
    lines = card[card.index(f"\n| {header}") + 1 :].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]


def test_the_card_loads_as_a_dataset_card(tmp_path):
    corpus = corpus_of_two(tmp_path)
    write_card(corpus)
    data = DatasetCard.load(corpus / CARD).data
    assert data.language == ["en"]
    assert data.license == "other"
    assert data.pretty_name == "corpus"
    assert data.size_categories == ["n<1K"]
    assert data.task_categories == ["image-to-text"]
    assert [config["config_name"] for config in data.configs] == ["items", "captions", "descriptions"]
    assert (corpus / SHEET).read_bytes().startswith(b"\x89PNG")


def test_the_cards_own_snippets_and_configs_read_the_corpus(tmp_path):
    corpus = corpus_of_two(tmp_path)
    first, second = re.findall(r"```python\n(.*?)```", card_of(corpus), re.DOTALL)
    check = """
        main = datasets.load_dataset(os.getcwd(), split="train")
        captions = datasets.load_dataset(os.getcwd(), "captions", split="train")
        import json
        print(json.dumps([list(table["text"]) for table in (rows, same, main, captions)]))
    """
    program = f"{first}\n{textwrap.dedent(check)}\n{second}\nprint(rows.num_rows)"
    environment = {**os.environ, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"}
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=corpus, env=environment, capture_output=True, text=True, timeout=120
    )
    assert ran.returncode == 0, ran.stderr
    *_, told, last = ran.stdout.strip().splitlines()
    texts = ["A red square.", "One. Two, three."] * 2
    assert json.loads(told) == [texts, texts, texts, ["a human wrote this"]]
    assert last == "2"  # of the last shard


def test_an_empty_table_gets_no_config(tmp_path):
    rows = [item(picture(tmp_path / "a.png"))]
    corpus = write_corpus(tmp_path / "corpus", items=[rows], captions=[[]], descriptions=[[]])
    card = card_of(corpus)
    assert [config["config_name"] for config in DatasetCard.load(corpus / CARD).data.configs] == ["items"]
    assert "None could be made" in card
    assert 'data_files="items/*.arrow"' in card


def test_what_is_complete_is_told_and_nothing_else(tmp_path):
    rows = [item(picture(tmp_path / "a.png"))]
    corpus = write_corpus(tmp_path / "corpus", items=[rows])
    assert "## Descriptions" not in card_of(corpus)
    assert "not described yet" in card_of(corpus).lower()
    write_corpus(corpus, captions=[[caption("a.png", "two words")]])
    assert rows_of(card_of(corpus), "language") == [["en", "human", "1", "2 / 2 / 2", "9 / 9 / 9"]]
    write_corpus(corpus, descriptions=[[description("a.png", "three words here")]])
    assert rows_of(card_of(corpus), "view | descriptions")[0][:3] == ["short", "1", "3 / 3 / 3"]
    (corpus / "items" / "manifest.json").unlink()
    with pytest.raises(UsageError, match="items is not complete"):
        write_card(corpus)


def test_the_same_corpus_gives_the_same_bytes(tmp_path):
    corpus = corpus_of_two(tmp_path)
    write_card(corpus)
    before = [(corpus / name).read_bytes() for name in (CARD, SHEET)]
    (corpus / CARD).unlink()
    write_card(corpus)
    assert [(corpus / name).read_bytes() for name in (CARD, SHEET)] == before
    assert {path.name for path in corpus.iterdir()} == {CARD, SHEET, "items", "captions", "descriptions"}


def test_counts_are_those_of_the_rows(tmp_path):
    items, told, captions = [], [], []
    for number in range(60):
        name = f"{number}.png"
        media = "video" if number % 4 == 0 else "image"
        duration = number / 2 if media == "video" else None
        row = item(name, media_type=media, duration_s=duration, width=100 + number, height=50 + 2 * number)
        items.append(
            {**row, "split": "test" if number % 3 == 0 else "train", "sha256": f"{number // 2 % 20:02x}".ljust(64, "0")}
        )
        for view in ("short", "detail"):
            flags = ["cut", "loop"] if number % 5 == 0 else ["cut"] if number % 5 == 1 and view == "detail" else []
            reason = "length" if "cut" in flags else "stop"
            text = " ".join(["wörd"] * (number % 7 + 1))
            told.append(description(name, text, view, flags=flags, finish_reason=reason, prompt_tokens=number))
        captions += [caption(name, "x" * (number + 1), language=language) for language in ("en", "zh")[: number % 3]]
    shards = {"items": [items[:11], items[11:12], items[12:]], "descriptions": [told[:22], told[22:24], told[24:]]}
    card = card_of(write_corpus(tmp_path / "corpus", captions=[captions, [], []], **shards))

    images, videos = ([row for row in items if row["media_type"] == kind] for kind in ("image", "video"))
    assert rows_of(card, "media")[0][:3] == ["image", str(len(images)), _naive([row["width"] for row in images])]
    assert rows_of(card, "media")[1][3] == _naive([row["height"] for row in videos])
    assert rows_of(card, "media")[1][4] == _naive([row["duration_s"] for row in videos])
    assert rows_of(card, "media")[1][5] == f"{sum(row['duration_s'] for row in videos) / 60:.1f}"
    counts = {tuple(row[:2]): int(row[2]) for row in rows_of(card, "split")}
    assert counts == {
        key: sum((row["split"], row["media_type"]) == key for row in items)
        for key in itertools.product(("test", "train"), ("image", "video"))
    }
    for view, count, words, characters, prompt_tokens, completion_tokens in rows_of(card, "view | descriptions"):
        own = [row for row in told if row["view"] == view]
        assert (count, words) == (str(len(own)), _naive([len(row["text"].split()) for row in own]))
        assert characters == _naive([len(row["text"]) for row in own])
        assert prompt_tokens == f"{sum(row['prompt_tokens'] for row in own):,}"
        assert completion_tokens == str(3 * len(own))
    for view, cut, loop in rows_of(card, "view | cut"):
        own = [row["flags"] for row in told if row["view"] == view]
        assert cut == _share(sum("cut" in flags for flags in own), len(own))
        assert loop == _share(sum("loop" in flags for flags in own), len(own))
    for view, length, _stop in rows_of(card, "view | length"):
        own = [row["finish_reason"] for row in told if row["view"] == view]
        assert length == _share(own.count("length"), len(own))
    for language, origin, count, _words, characters in rows_of(card, "language"):
        own = [len(row["text"]) for row in captions if row["language"] == language]
        assert (origin, count, characters) == ("human", str(len(own)), _naive(own))
    assert "**cut**: the answer reached the token limit" in card
    assert f"Of {len({row['item_id'] for row in captions})} items." in card
    assert "60 items share 20 contents" in card


def _naive(numbers: list) -> str:
    return f"{min(numbers):,} / {statistics.median_low(numbers):,} / {max(numbers):,}"


def _share(count: int, total: int) -> str:
    return f"{count} ({count / total:.1%})"


def test_many_sources_are_cut_to_the_commonest(tmp_path):
    rows = [item(f"{i}.png", source=f"by {min(i, 40):02}") for i in range(50)]
    told = rows_of(card_of(write_corpus(tmp_path, items=[rows])), "source")
    assert told[0] == ["by 40", "10"]
    assert told[-1] == ["(21 others)", "21"]
    assert sum(int(count) for _, count in told) == 50


def test_texts_cannot_break_out_of_the_card(tmp_path):
    row = item(picture(tmp_path / "a.png"), item_id="a|<img src=x>.png", source=HOSTILE, license=HOSTILE)
    failure = {"id": "b|c", "stage": "ingest", "error": "missing", "message": HOSTILE, "attempts": 1, "shard": 0}
    views = {"views": {"short": {"name": "short", "prompt": HOSTILE}}, "captioner": "m|<i>"}
    corpus = write_corpus(
        tmp_path / "a#b <i> [c]",
        views,
        failures={"items": [failure]},
        items=[[row]],
        captions=[[caption(row["item_id"], HOSTILE)]],
        descriptions=[[description(row["item_id"], HOSTILE, captioner="m|<i>")]],
    )
    card = card_of(corpus)
    assert "<script" not in card
    assert "<i" not in card.split("---\n", 2)[2]
    assert not re.search(r"(?<!\\)\]\(javascript", card)
    assert not re.search(r"^# big", card, re.MULTILINE)
    for table in re.findall(r"(?:^\|.*\n)+", card + "\n", re.MULTILINE):
        widths = {len(re.split(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(widths) == 1, table
    assert DatasetCard.load(corpus / CARD).data.pretty_name == "a#b <i> [c]"


def test_no_path_of_the_machine_is_in_the_card(tmp_path):
    where = str(tmp_path)
    failures = [
        {"id": f"{i}.png", "stage": "ingest", "error": "missing", "message": f"{where}/{i}.png: gone", "attempts": 1}
        for i in range(5)
    ]
    corpus = write_corpus(
        tmp_path / "corpus",
        {"captioner": f"{where}/my-model"},
        failures={"items": failures},
        items=[[item(picture(tmp_path / "a.png"))]],
        descriptions=[[description("a.png", "A square.", captioner=f"{where}/my-model")]],
    )
    card = card_of(corpus)
    assert where not in card
    assert "/home/me" not in card
    assert rows_of(card, "captioner")[0][0] == "…/my-model"
    assert rows_of(card, "setting") == [["inputs", "…/photos"], ["shard_size", "1,000"]]
    assert "| views |" not in card  # the prompts have a table of their own
    assert rows_of(card, "stage") == [
        ["ingest", "missing", "5", "0.png: …/0.png: gone — 1.png: …/1.png: gone — 2.png: …/2.png: gone"]
    ]


def test_the_card_says_loudly_when_no_llm_wrote_it(tmp_path):
    views = {"short": {"name": "short", "prompt": "What?"}}
    rows = [item(picture(tmp_path / "a.png"))]
    told = [description("a.png", "A square.", prompt_tokens=None, completion_tokens=None)]
    for name, captioner in (("classifier", "embedded:efficientnet-lite0"), ("llm", "a-model")):
        settings = {"captioner": captioner, "views": views}
        card = card_of(write_corpus(tmp_path / name, settings, items=[rows], descriptions=[told]))
        assert ("No multimodal LLM wrote these" in card) == (name == "classifier")
        assert f"Described by {captioner}" in card
        assert "tokens" not in "".join(card.split("## Descriptions")[1].split("\n\n")[2])


def test_unknown_licences_are_counted_and_left_to_the_user(tmp_path):
    rows = [item(f"{i}.png", license="" if i < 2 else "CC BY 2.0") for i in range(5)]
    card = card_of(write_corpus(tmp_path / "some", items=[rows]))
    assert rows_of(card, "licence") == [["CC BY 2.0", "3"], ["not stated", "2"]]
    assert "states no licence for 2 items" in card
    known = card_of(write_corpus(tmp_path / "known", items=[rows[2:]]))
    assert "yours to clear" not in known
    assert "license: cc-by-2.0\n" in known


def test_a_real_run_over_videos_leaves_a_card(tmp_path):
    clips = (SHARED / "clips").resolve()
    if not clips.exists():
        pytest.skip(f"the test data {clips} is not here")
    assert beam_runner.run(["--stage", "ingest", "--input", str(clips), "--output", str(tmp_path / "clips")]) == 0
    card = DatasetCard.load(tmp_path / "clips" / CARD)
    assert card.data.task_categories == ["video-text-to-text"]
    assert "4 videos" in card.text
    assert str(clips.parent) not in card.text

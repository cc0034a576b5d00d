"""The real arm's parts that need no server: its input, its measure of rightness, its page. `make test-vllm` serves."""

import pytest

from bench import real_arm
from bench.real_arm import described_right, draw_scenes, pairs, translated_right
from bench.study import LANGUAGES, Plan
from pipeline.sources.scenes.corpus import Settings, write_corpus

SMALL = Plan(items=12, held_out=4)


@pytest.fixture(scope="module")
def truth(tmp_path_factory):
    folder = tmp_path_factory.mktemp("real") / "drawn"
    draw_scenes(folder, SMALL, 0)
    return folder


def simulated(folder, noise=0.0, errors=0.0):
    settings = Settings(
        items=12, val=4, test=4, seed=0, languages=LANGUAGES, translation_noise=noise, description_errors=errors
    )
    write_corpus(folder, settings)
    return folder


def test_without_errors_everything_is_right_and_with_errors_less_is(truth, tmp_path):
    clean = simulated(tmp_path / "clean")
    for found in (described_right(clean, truth), translated_right(clean, truth)):
        assert all(x == {"words": 1, "exact": 1} for x in found.values())
    assert translated_right(clean, truth).keys() == set(LANGUAGES)
    bad = simulated(tmp_path / "bad", noise=0.6, errors=0.4)
    for found in (described_right(bad, truth), translated_right(bad, truth)):
        assert all(0.2 < x["words"] < 0.95 and x["exact"] < 0.8 for x in found.values())


def test_translators_learn_from_other_scenes(truth, monkeypatch):
    monkeypatch.setattr(real_arm, "PAIRS_ITEMS", 30)
    found = pairs("de")
    assert len(found) == 90 and all(source != target for source, target in found)
    ours = [row["text"] for row in real_arm.rows_of(truth, "captions")]
    assert len({source for source, _ in found} & set(ours)) < 10  # sentences may recur, scenes do not

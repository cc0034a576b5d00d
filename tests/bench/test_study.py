"""The study on scenes: its corpora hold the descriptions of every level, and its page compares seed by seed."""

import math

import pytest

from bench import study
from bench.arms import Run, Scores
from bench.study import LEVELS, MAIN, MIDDLE, PARTS, Difference, Plan, Scenes
from pipeline.corpus.table import Table
from stages.training.settings import resolve

SMALL = Plan(seeds=2, parts=False, items=48, held_out=4, tried=1, steps=2)


def line(arm, seed, sum_r, rows=None, settings=("steps=1",)):
    score = {"val": sum_r, "weight": 0.5, "languages": {tag: {"sum_r": sum_r} for tag in study.LANGUAGES}}
    return {"regime": MIDDLE.name, "draw": seed, "arm": arm, "seed": seed, "chosen": [], "settings": settings} | {
        "scores": {row: score for row in rows or [arm]}
    }


def test_differences_are_taken_seed_by_seed_with_student_s_t():
    """Three seeds: t(.975, 2) = 4.3027; of 1, 2, 3 the standard error is 1/√3. Seeds differ by more than arms do."""
    lines = [line("a", seed, 100 * seed) for seed in range(4)] + [line("b", n, 100 * n + n) for n in (1, 2, 3)]
    gap = Difference.of(Scores(lines, MIDDLE.name), "b", "a")
    assert gap.mean == pytest.approx(2) and gap.half == pytest.approx(4.3027 / math.sqrt(3), rel=1e-4)
    assert gap.seeds == 3 and 0.05 < gap.p < 0.1


def test_holm_by_hand():
    assert study.holm([0.01, 0.04, 0.03, 0.5]) == pytest.approx([0.04, 0.09, 0.09, 0.5])


def test_every_arm_reads_its_own_level_and_all_try_as_many_settings(tmp_path):
    bench = Scenes(tmp_path / "runs", tmp_path / "scratch", SMALL)
    for name, arm in (MAIN | PARTS).items():
        for chosen in arm.grid or MAIN["corrected"].grid:
            settings = resolve(bench.recipe, bench.settings(Run(MIDDLE, 0, name, 0, chosen)))
            assert set(settings.slot_views) <= set(MIDDLE.draws[0])
            fixed = resolve(bench.recipe, arm.settings).to_json()
            names = [setting.partition("=")[0] for setting in arm.settings]
            assert {name: settings.to_json()[name] for name in names} == {name: fixed[name] for name in names}
    assert len({len(arm.grid) for arm in MAIN.values()}) == 1


@pytest.mark.torture
def test_real_runs_on_corpora_with_the_descriptions_of_every_level(tmp_path):
    bench = Scenes(tmp_path / "runs", tmp_path / "scratch", SMALL)
    rows = list(Table(bench.corpus(MIDDLE, 0), "training").rows())
    views = {view["view"] for view in rows[0]["descriptions"]}
    assert len(rows) == 56 and views == {view for level in LEVELS for view in level.draws[0]}
    bench.study([0, 1], ["corrected", "towers on descriptions"])
    again = Scenes(tmp_path / "runs", tmp_path / "scratch", SMALL)
    assert len(again.lines) == 8 and {line["draw"] for line in again.lines} == {0, 1}
    again.study([0, 1], ["corrected", "towers on descriptions"])
    assert len(again.lines) == 8
    assert all(0 < score["val"] <= 600 for line in again.lines for score in line["scores"].values())

import json
import math

import pytest

from bench import study
from bench.study import ARMS, PAPER, PARTS, Level, Plan, Run
from bench.study_report import Estimate, Scores
from stages.training.settings import resolve


def line(arm, seed, sum_r, noise=0.3, errors=0.1):
    return {
        "arm": arm, "noise": noise, "errors": errors, "seed": seed, "sum_r": sum_r, "chance": 10.6, "commit": "abc",
        "settings": list(ARMS.get(arm, ())),
    }  # fmt: skip


def test_an_interval_by_hand():
    """Three seeds: t(.975, 2) = 4.3027; of 1, 2, 3 the standard error is 1/√3."""
    found = Estimate.of([1.0, 2.0, 3.0])
    assert found.mean == 2 and found.half == pytest.approx(4.3027 / math.sqrt(3), rel=1e-4)
    assert found.shown("+") == "+2.0 ± 2.5" and found.verdict() == "no difference shown"
    assert Estimate.of([3.0, 3.1, 3.2]).verdict() == "helps" and Estimate.of([-3.0, -3.1]).verdict() == "hurts"
    assert Estimate.of([3.0]).shown() == "3.0" and Estimate.of([3.0]).verdict() == "too few seeds to say"
    assert Estimate.of([]).shown() == "–"


def test_differences_are_taken_seed_by_seed():
    """Seeds differ by far more than arms do; one arm lacks a seed."""
    scores = Scores([line("a", seed, 100 * seed) for seed in range(4)] + [line("b", n, 100 * n + 5) for n in (1, 3)])
    assert scores.difference("b", "a", 0.3, 0.1) == Estimate(5, 0, 2)
    assert scores.mean("b", 0.3, 0.1).mean == 205 and scores.mean("b", 0.6, 0.1).seeds == 0


def test_every_arm_is_what_its_name_says():
    def settings(arm):
        return resolve("scenes", ARMS[arm]).to_json()

    before = settings("two towers")
    changed = []
    for arm in PARTS:
        after = settings(arm)
        changed.append({name for name in after if after[name] != before[name]})
        before = after
    assert changed[1:] == [
        {"extra_views"},
        {"slots", "slot_views", "local_weight"},
        {"local_weight", "global_weights"},
        {"distillation_weight"},
        {"pair_weighting"},
    ]
    assert settings("corrected") == resolve("scenes", PAPER).to_json()
    faithful = ["method=faithful", "slot_views=detail", "select_on=val"]
    assert settings("faithful") == resolve("scenes", [*PAPER, *faithful]).to_json()


def test_runs_that_are_there_are_not_run_again_and_each_is_written_as_it_ends(tmp_path, monkeypatch):
    plan, lines = Plan(seeds=1, arms=("two towers", "corrected"), noises=(0.3,), errors=(0.1,)), tmp_path / "runs.jsonl"
    monkeypatch.setattr(study, "corpus_of", lambda *_: tmp_path)
    ran = []

    def carry_out(run, plan, corpus, folder):
        ran.append(run.arm)
        if run.arm == "corrected" and len(ran) == 2:
            raise SystemExit("killed")
        return {**line(run.arm, run.seed, 1.0), "plan": plan.key()}

    monkeypatch.setattr(study, "carry_out", carry_out)
    with pytest.raises(SystemExit, match="killed"):
        study.study(plan, lines, tmp_path, 1)
    assert list(study.done(lines, plan)) == [Run("two towers", Level(0.3, 0.1), 0)]
    study.study(plan, lines, tmp_path, 1)
    assert ran == ["two towers", "corrected", "corrected"] and len(study.done(lines, plan)) == 2
    assert study.done(lines, Plan(steps=1)) == {}  # of another plan
    monkeypatch.setitem(ARMS, "corrected", ("num_slots=3",))
    assert [run.arm for run in study.done(lines, plan)] == ["two towers"]  # of other settings


@pytest.mark.torture
def test_a_real_run(tmp_path):
    plan = Plan(seeds=1, items=24, held_out=8, steps=2, batch=8, arms=("corrected",), noises=(0.3,), errors=(0.1,))
    study.study(plan, tmp_path / "runs.jsonl", tmp_path / "scratch", 1)
    (found,) = (json.loads(text) for text in (tmp_path / "runs.jsonl").read_text().splitlines())
    assert found["languages"].keys() == set(study.LANGUAGES) and found["selection"]["split"] == "val"
    assert 0 < found["sum_r"] <= 600 and [path.name for path in (tmp_path / "scratch").glob("*.json")]

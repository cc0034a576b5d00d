"""The command line of training: what it takes, what its help lists, what is said at the start and at the end."""

import argparse
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from pipeline.errors import UsageError
from stages import train
from stages.recipes import Recipe, load_recipes
from stages.training.settings import resolve
from stages.training.trainer import Plan, Position


def test_settings_may_stand_anywhere():
    line = "a=1 --recipe base b=2 --output run --data one --data two c=3 --micro-batch 4"
    parsed = train.parse(line.split())
    assert parsed.settings == ["a=1", "b=2", "c=3"] and parsed.output == Path("run")
    assert parsed.data == [Path("one"), Path("two")]
    assert parsed.given == {"data": ("one", "two"), "micro_batch": 4}
    assert train.parse(["--recipe", "base", "--output", "run"]).given == {}


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("--recipe base", "required: --output"),
        ("--output run", "required: --recipe"),
        ("--recipe base --output run --micro-batch few", "invalid int value: 'few'"),
        ("--recipe base --output run --resum", "unrecognized arguments: --resum"),
        ("--recipe base --output run --resume --overwrite", "got --resume and --overwrite, wanted one"),
        (f"--recipe base --output {__file__}/run", "test_train.py is a file: give another folder"),
    ],
)
def test_a_mistake_on_the_command_line_is_told_like_others(line, told):
    with pytest.raises(UsageError, match=told):
        train.parse(line.split())


def test_help_lists_recipes_and_settings(capsys):
    with pytest.raises(SystemExit) as caught:
        train.parse(["--help"])
    shown = capsys.readouterr().out
    assert caught.value.code == 0
    assert all(f"\n  {name} " in shown for name in load_recipes())
    assert "batch_size=128" in shown and "num_slots=4" in shown


def test_a_recipe_without_data_makes_its_corpus_or_says_what_to_give(tmp_path, monkeypatch):
    options = argparse.Namespace(recipe="base", data=None)
    with pytest.raises(UsageError, match="--recipe base makes no corpus of its own: give --data CORPUS"):
        train.corpora_of(options, tmp_path)
    made = []
    monkeypatch.setitem(load_recipes(), "scenes", Recipe("", {}, made.append))
    assert train.corpora_of(argparse.Namespace(recipe="scenes", data=None), tmp_path) == [tmp_path / "corpus"]
    assert made == [tmp_path / "corpus"]
    given = argparse.Namespace(recipe="scenes", data=[Path("other")])
    assert train.corpora_of(given, tmp_path) == [Path("other")] and len(made) == 1


def test_the_end_says_where_the_best_is(tmp_path):
    best = {"step": 1200, "sum_r": 391.62, "chance": 10.6}
    ended = argparse.Namespace(position=Position(step=1500, best=best))
    told = train.closing(tmp_path, resolve("demo"), ended)
    assert told == f"best SumR 391.6 on train (chance 10.6) at step 1,200: {tmp_path / 'best'} · curves: none"


class Described(list):
    """Nine samples; of some items nobody wrote a description."""

    notes, languages, index = (), ("de",), SimpleNamespace(undescribed=1200)


@pytest.mark.parametrize(("more", "told"), [((), True), (("num_slots=0",), False)])
def test_the_opening_tells_of_items_that_slots_have_nothing_to_read_of(more, told):
    accelerator = SimpleNamespace(mixed_precision="no", num_processes=1, device=torch.device("cpu"))
    plan = Plan(10, 5, lambda step: [])
    said = train.opening(resolve("base", more), accelerator, torch.nn.Linear(2, 3), Described(range(9)), plan)
    assert "9 samples of de" in said
    assert ("note: 1,200 items have no description for slots to read" in said) == told

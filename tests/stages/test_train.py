"""The command line of training and its help."""

from pathlib import Path

import pytest

from pipeline.errors import UsageError
from stages import train
from stages.recipes import Recipe, load_recipes
from tests.worked_examples import each_example


def test_settings_may_stand_anywhere():
    line = "micro_batch=1 --recipe base lr=0.5 --output run --data one --data two seed=3 --micro-batch 4"
    options = train.parse(line.split())
    assert options.data == [Path("one"), Path("two")] and options.output == Path("run")
    assert options.overrides == ["micro_batch=1", "lr=0.5", "seed=3"]
    settings = train.resolve_settings(train.parse(line.removeprefix("micro_batch=1 ").split()))
    assert (settings.data, settings.micro_batch, settings.lr, settings.seed) == (("one", "two"), 4, 0.5, 3)
    assert train.parse(["--recipe", "base", "--output", "run"]).data == []


@each_example("mistake_on_the_command_line_is_a_usage_error", "line, message")
def test_mistake_on_the_command_line_is_a_usage_error(line, message):
    with pytest.raises(UsageError, match=message):
        train.parse(line.split())


def test_recipe_makes_its_corpus_or_asks_for_one(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="give --data CORPUS"):
        train.find_corpora("base", [], tmp_path)
    folders = []
    monkeypatch.setitem(load_recipes(), "scenes", Recipe("", {}, folders.append))
    assert train.find_corpora("scenes", [], tmp_path) == [tmp_path / "corpus"] == folders
    assert train.find_corpora("scenes", [Path("other")], tmp_path) == [Path("other")] and len(folders) == 1

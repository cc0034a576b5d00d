"""The command line of training and its help."""

from pathlib import Path

import pytest

from pipeline.errors import UsageError
from stages import train
from stages.recipes import Recipe, load_recipes


def test_settings_may_stand_anywhere():
    line = "micro_batch=1 --recipe base lr=0.5 --output run --data one --data two seed=3 --micro-batch 4"
    options = train.parse(line.split())
    assert options.data == [Path("one"), Path("two")] and options.output == Path("run")
    assert options.overrides == ["micro_batch=1", "lr=0.5", "seed=3"]
    settings = train.resolve_settings(train.parse(line.removeprefix("micro_batch=1 ").split()))
    assert (settings.data, settings.micro_batch, settings.lr, settings.seed) == (("one", "two"), 4, 0.5, 3)
    assert train.parse(["--recipe", "base", "--output", "run"]).data == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--recipe base", "--output"),
        ("--recipe base --output run --micro-batch few", "'few'"),
        ("--recipe base --output run --resum", "--resum"),
        ("--recipe base --output run --resume --overwrite", "only one of them"),
    ],
)
def test_mistake_on_the_command_line_is_a_usage_error(line, message):
    with pytest.raises(UsageError, match=message):
        train.parse(line.split())


def test_help_lists_recipes_and_settings(capsys):
    with pytest.raises(SystemExit) as stop:
        train.parse(["--help"])
    text = capsys.readouterr().out
    assert stop.value.code == 0
    assert all(f"\n  {name} " in text for name in load_recipes())
    assert "batch_size=128" in text and "num_slots=4" in text


def test_recipe_makes_its_corpus_or_asks_for_one(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="give --data CORPUS"):
        train.find_corpora("base", [], tmp_path)
    folders = []
    monkeypatch.setitem(load_recipes(), "scenes", Recipe("", {}, folders.append))
    assert train.find_corpora("scenes", [], tmp_path) == [tmp_path / "corpus"] == folders
    assert train.find_corpora("scenes", [Path("other")], tmp_path) == [Path("other")] and len(folders) == 1

"""The command line of training, its help, and its opening and closing messages."""

from pathlib import Path

import pytest

from pipeline.errors import UsageError
from stages import train
from stages.recipes import Recipe, load_recipes


def test_settings_may_stand_anywhere():
    line = "a=1 --recipe base b=2 --output run --data one --data two c=3 --micro-batch 4"
    options = train.parse(line.split())
    assert options.overrides == ("a=1", "b=2", "c=3") and options.output == Path("run")
    assert options.data == (Path("one"), Path("two")) and options.micro_batch == 4
    settings = train.parse(
        ["--recipe", "base", "--output", "run", "--data", "one", "--micro-batch", "4", "lr=0.5"]
    ).settings()
    assert (settings.data, settings.micro_batch, settings.lr) == (("one",), 4, 0.5)
    assert train.parse(["--recipe", "base", "--output", "run"]) == train.TrainOptions("base", Path("run"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--recipe base", "--output"),
        ("--output run", "--recipe"),
        ("--recipe base --output run --micro-batch few", "'few'"),
        ("--recipe base --output run --resum", "--resum"),
        ("--recipe base --output run --resume --overwrite", "only one of them"),
        (f"--recipe base --output {__file__}/run", r"test_train\.py is a file"),
    ],
)
def test_a_mistake_on_the_command_line_is_a_usage_error(line, message):
    with pytest.raises(UsageError, match=message):
        train.parse(line.split())


def test_help_lists_recipes_and_settings(capsys):
    with pytest.raises(SystemExit) as caught:
        train.parse(["--help"])
    text = capsys.readouterr().out
    assert caught.value.code == 0
    assert all(f"\n  {name} " in text for name in load_recipes())
    assert "batch_size=128" in text and "num_slots=4" in text


def test_a_recipe_makes_its_corpus_or_asks_for_one(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="give --data CORPUS"):
        train.find_corpora(train.TrainOptions("base", tmp_path))
    folders = []
    monkeypatch.setitem(load_recipes(), "scenes", Recipe("", {}, folders.append))
    assert train.find_corpora(train.TrainOptions("scenes", tmp_path)) == [tmp_path / "corpus"] == folders
    given = train.TrainOptions("scenes", tmp_path, (Path("other"),))
    assert train.find_corpora(given) == [Path("other")] and len(folders) == 1

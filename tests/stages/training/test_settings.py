"""Settings: precedence, values that are refused, and a description of every setting."""

import re

import pytest

from model.settings import ModelSettings, ObjectiveConfig
from pipeline.errors import UsageError
from pipeline.options import option_fields
from stages import recipes
from stages.recipes import Recipe, load_recipes
from stages.training.settings import Settings, describe_settings, resolve
from tests.model.towers import FAITHFUL
from tests.worked_examples import each_example


@pytest.fixture
def recipe(monkeypatch):
    """Replaces the settings of the recipe `base`."""

    def replace(**settings):
        monkeypatch.setitem(load_recipes(), "base", Recipe("", settings))

    return replace


def test_overrides_win_over_the_recipe_and_the_recipe_over_the_defaults(recipe):
    recipe(lr=0.5, epochs=3, num_slots=2)
    resolved = resolve("base", ["epochs=7", "dropout=0", "diversity_weight=0.25"])
    assert (resolved.recipe, resolved.lr, resolved.epochs, resolved.seed) == ("base", 0.5, 7, 0)
    assert resolved.model == {"num_slots": 2, "dropout": 0.0}
    assert resolved.objective_config() == ObjectiveConfig(diversity_weight=0.25)


def test_the_method_comes_between_recipe_and_overrides(recipe):
    recipe(slot_init="normal", horizontal_flip=0.25)
    faithful = resolve("base", ["method=faithful", "select_on=val"])
    assert faithful.objective_config() == FAITHFUL
    assert faithful.horizontal_flip == 0.5 and faithful.model["slot_init"] == "zero"
    assert faithful.select_on == "val" and resolve("base").select_on == "val"
    assert resolve("base", ["method=faithful"]).select_on == "test"
    assert (faithful.max_words, faithful.max_tokens, faithful.plain_captions) == (30, 200, True)
    assert (faithful.resize, faithful.smallest_crop, faithful.clip, faithful.mixed_precision) == (
        "squash",
        0.5,
        0,
        "no",
    )


def test_faithful_leaves_a_recipe_its_weights():
    """Those that were released, not the defaults."""
    german = resolve("multi30k_de", ["method=faithful"])
    config = german.objective_config()
    assert (config.diversity_weight, config.distillation_weight, config.diversity) == (0.05, 0.0, "signed")
    assert german.languages == ("de",) and german.model["slot_init"] == "zero"


@each_example("mistakes_name_the_setting_and_what_is_expected", "override, message")
def test_mistakes_name_the_setting_and_what_is_expected(override, message):
    with pytest.raises(UsageError, match=message):
        resolve("base", [override])


def test_an_unknown_recipe_is_refused_with_the_nearest():
    with pytest.raises(UsageError, match=r"unknown recipe 'scene'.*did you mean 'scenes'"):
        resolve("scene")


def test_every_recipe_resolves_and_documents_command_hardware_cost_and_score():
    documents = recipes.FILE.read_text("utf-8")
    for name, recipe in load_recipes().items():
        assert resolve(name).recipe == name and recipe.summary
        assert re.search(
            rf"^# (.*, )?{name}(,.*)?:\n#   Command: .*\n#   Hardware: .*\n#   Cost: .*\n#   Score: ", documents, re.M
        )


def test_help_describes_every_setting_with_its_default():
    lines = {line.split("=")[0].strip(): line for line in describe_settings().splitlines()}
    assert lines.keys() == resolve("base").to_json().keys() - {"recipe", "data"}
    assert "batch_size=128" in lines["batch_size"]
    for owner in (Settings, ModelSettings, ObjectiveConfig):
        assert all(field.metadata["help"] for field in option_fields(owner).values())


def test_only_what_changes_no_result_is_free():
    free = Settings().free()
    assert {"workers", "log_every", "log_with"} <= free
    assert not free & {"lr", "seed", "batch_size", "steps", "epochs", "languages", "validate_every", "num_slots"}


def test_no_slots_is_a_number_of_slots_too():
    assert resolve("base", ["num_slots=0"]).model["slots"] == "none"
    with pytest.raises(UsageError, match="num_slots=0"):
        resolve("base", ["num_slots=0", "slots=queries"])

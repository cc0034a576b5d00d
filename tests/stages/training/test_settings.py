"""Settings: precedence, values that are refused, and a description of every setting."""

import re

import pytest

from model.settings import ModelSettings, ObjectiveConfig
from pipeline.errors import UsageError
from pipeline.options import option_fields
from stages import recipes
from stages.recipes import Recipe, load_recipes
from stages.training.settings import Settings, describe_settings, resolve


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
    assert faithful.objective_config() == ObjectiveConfig.faithful()
    assert faithful.horizontal_flip == 0.5 and faithful.model["slot_init"] == "zero"
    assert faithful.select_on == "val" and resolve("base").select_on == "val"
    assert resolve("base", ["method=faithful"]).select_on == "test"


def test_faithful_leaves_a_recipe_its_weights():
    """Those that were released, not the defaults."""
    german = resolve("multi30k_de", ["method=faithful"])
    config = german.objective_config()
    assert (config.diversity_weight, config.distillation_weight, config.diversity) == (0.05, 0.0, "signed")
    assert german.languages == ("de",) and german.model["slot_init"] == "zero"


def test_faithful_is_what_the_released_code_does():
    flat, corrected = resolve("base", ["method=faithful"]).to_json(), resolve("base").to_json()
    assert {name: value for name, value in flat.items() if value != corrected[name]} == {
        "method": "faithful",
        "slot_init": "zero",
        "stack_init": "copies",
        "attention_dropout": 0.1,
        "normalize_slots": False,
        "caption_vision_axis": "tokens",
        "description_encoder": "shared",
        "new_layer_lr_multiplier": 1.0,
        "horizontal_flip": 0.5,
        "truncate_training_texts": False,
        "max_words": 30,
        "global_weights": [1.0],
        "select_on": "test",
        "pair_weighting": False,
        "caption_vision": "slots",
        "diversity": "signed",
        "teacher": "min_max",
        "teacher_orientation": "mixed",
        "local_columns": "rank",
        "gather": "slice",
    }


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("epoch=3", "did you mean 'epochs'"),
        ("num_slot=3", "did you mean 'num_slots'"),
        ("teacher_wait=1", "did you mean 'teacher_weight'"),
        ("epochs", "key=value"),
        ("data=here", "use --data"),
        ("epochs=many", "epochs: .*'many'"),
        ("batch_size=2.5", "batch_size: .*'2.5'"),
        ("lr=nan", "lr: .*'nan'"),
        ("pair_weighting=maybe", "yes or no"),
        ("global_weights=0,2", "global_weights: .*'2'"),
        ("global_weights=", "global_weights has no value"),
        ("schedule=step", "linear or cosine"),
        ("warmup=-1", "warmup: .*at least 0"),
        ("ema=1", "less than 1"),
        ("num_slots=-1", "num_slots: .*at least 0"),
        ("diversity=cubed", "squared or signed"),
    ],
)
def test_mistakes_name_the_setting_and_what_is_expected(override, message):
    with pytest.raises(UsageError, match=message):
        resolve("base", [override])


@pytest.mark.parametrize(("name", "value"), [("lr", -1.0), ("schedule", "step"), ("num_slots", -1), ("teacher", "max")])
def test_a_recipe_is_checked_like_the_command_line(recipe, name, value):
    recipe(**{name: value})
    with pytest.raises(UsageError, match=f"{name}={value}"):
        resolve("base")


def test_an_unknown_recipe_is_refused_with_the_nearest():
    with pytest.raises(UsageError, match=r"expected one of base, demo, .*did you mean 'scenes'"):
        resolve("scene")


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("languages=de, fr", ("de", "fr")),
        ("languages=", ()),
        ("global_weights=.5,1", (0.5, 1.0)),
        ("pair_weighting=no", False),
        ("pair_weighting=TRUE", True),
        ("lr=3e-4", 3e-4),
        ("media=org/name=x", "org/name=x"),
    ],
)
def test_values_are_read_by_the_type_of_the_default(override, value):
    assert getattr(resolve("base", [override]), override.partition("=")[0]) == value


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
    assert {"workers", "log_every", "tensorboard"} <= free
    assert not free & {"lr", "seed", "batch_size", "steps", "epochs", "languages", "validate_every", "num_slots"}

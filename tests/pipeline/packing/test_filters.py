"""Thresholds from a file: what is read, what is refused, and which pairs they drop."""

import numpy as np
import pytest

from pipeline.errors import UsageError
from pipeline.packing.filters import read_filters
from tests.corpora import translation
from tests.worked_examples import each_example


@pytest.fixture
def read(tmp_path):
    def written(text):
        (tmp_path / "filters.yaml").write_text(text, encoding="utf-8")
        return read_filters(tmp_path / "filters.yaml")

    return written


def pair(target="de", flags=(), **scores):
    return translation("a#en#0", target, "Text.", flags=list(flags), **scores)


def test_without_a_file_the_stored_flags_decide():
    filters = read_filters(None)
    assert filters.rules_against(pair(flags=["numbers", "copied"], copied=0.0)) == ["copied", "numbers"]
    assert filters.rules_against(pair(flags=["preamble"], copied=1.0, meaning=-1.0)) == []  # a note, not a rule


def test_rules_named_are_judged_anew_and_the_others_keep_their_flag(read):
    filters = read("default: {copied: 0.5, meaning: 0.4}\ncs: {meaning: 0.8}\nfr: {copied: off}\n")
    assert filters.thresholds["fr"] == {"copied": None}
    assert filters.rules_against(pair("de", ["copied"], copied=0.4, meaning=0.6)) == []
    assert filters.rules_against(pair("de", [], copied=0.6, meaning=0.3)) == ["copied", "meaning"]
    assert filters.rules_against(pair("cs", ["numbers"], meaning=0.6)) == ["meaning", "numbers"]
    assert filters.rules_against(pair("fr", ["copied", "empty"], copied=1.0)) == ["empty"]  # empty always drops


def test_descriptions_have_flags_to_switch_off_and_no_thresholds(read):
    assert read("descriptions: {loop: off}").thresholds == {"descriptions": {"loop": None}}
    for text in ("descriptions: {loop: 0.5}", "descriptions: {copied: off}", "default: {loop: off}"):
        with pytest.raises(UsageError, match=r"loop|copied"):
            read(text)


def test_what_was_not_measured_never_falls(read):
    assert read("default: {meaning: 0.9, copied: 0}\n").rules_against(pair(flags=["meaning"])) == []


def test_a_score_equal_to_its_threshold_passes(read):
    """0.9 stored as float32 is less than 0.9."""
    for value in (0.9, 0.1, 0.7, 0.3001):
        filters = read(f"default: {{meaning: {value}, copied: {value}}}\n")
        stored = float(np.float32(value))
        assert filters.rules_against(pair(meaning=stored, copied=stored)) == []


def test_a_region_takes_the_thresholds_of_its_language_first(read):
    filters = read("default: {meaning: 0.1, copied: 0.9}\npt: {meaning: 0.5}\npt-BR: {copied: 0.2}\n")
    assert filters.for_language("pt-BR") == pytest.approx({"meaning": 0.5, "copied": 0.2})
    assert filters.for_language("pt") == pytest.approx({"meaning": 0.5, "copied": 0.9})
    assert filters.for_language("pts") == pytest.approx({"meaning": 0.1, "copied": 0.9})


def test_tags_are_read_as_tags(read):
    """By YAML's own rules `no` is false; and a tag has one canonical spelling."""
    assert set(read("no: {meaning: 0.5}\ndeu: {meaning: 0.5}\n").thresholds) == {"no", "de"}


@each_example("mistakes_are_named", "text, reason")
def test_mistakes_are_named(read, text, reason):
    with pytest.raises(UsageError, match=r"--filters: .*filters\.yaml") as raised:
        read(text)
    assert reason in str(raised.value)

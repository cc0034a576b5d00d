"""The command line: checked once, with the nearest spelling of what is misspelt."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UsageError
from pipeline.options import read_options
from stages import options
from stages.ingest import IngestOptions

CAPTIONS = ("--stage", "captions")
# An option of each kind, and the stages that it goes with.
BELONGS = {
    ("--output", "x"): options.STAGES,
    ("--strict",): options.STAGES,
    ("--input", "x"): ("ingest", "captions", "translate"),
    ("--caption-language", "en"): ("ingest", "captions", "translate"),
    ("--views", "short"): ("captions",),
    ("--captioner", "auto"): ("captions",),
    ("--max-pixels", "589824"): ("captions",),
    ("--dry-run", "3"): ("captions",),
    ("--frames", "8"): ("captions", "pack"),
    ("--mllm", "x"): ("captions", "translate"),
    ("--vllm-args", "x"): ("captions", "translate"),
    ("--window", "64"): ("captions", "translate"),
    ("--patience", "1"): ("captions", "translate"),
    ("--languages", "de"): ("translate",),
    ("--round-trip",): ("translate",),
    ("--back-model", "x"): ("translate",),
    ("--corpus", "x"): ("pack",),
    ("--media", "pixels"): ("pack",),
}


def refused(*arguments):
    with pytest.raises(UsageError) as caught:
        options.parse((*CAPTIONS, *arguments))
    return str(caught.value)


@pytest.mark.parametrize(
    "typed, meant",
    [
        ("--inptu", "--input"),
        ("--ouput", "--output"),
        ("--shardsize", "--shard-size"),
        ("--shard_size", "--shard-size"),
        ("--view", "--views"),
        ("--direct_num_worker", "--direct_num_workers"),
        ("--runer", "--runner"),
    ],
)
@pytest.mark.parametrize("form", ["{} x", "{}=x"])
def test_misspelt_options(typed, meant, form):
    assert f"did you mean {meant}?" in refused(*form.format(typed).split())


def test_a_misspelt_option_beside_another_runner():
    assert "did you mean --input?" in refused("--runner", "FlinkRunner", "--inptu", "x")


def test_an_option_that_is_like_none():
    assert "--frobnicate" in refused("--frobnicate", "x") and "--help" in refused("--frobnicate", "x")
    _, beam = options.parse((*CAPTIONS, "--runner", "acme.Runner", "--acme_token", "x"))
    assert beam == ["--runner", "acme.Runner", "--acme_token", "x"]  # another runner may know more than Beam itself


@pytest.mark.parametrize("stray", [("photos",), ("--direct_num_workers", "2", "photos"), ("-x",), ("-i", "photos")])
def test_words_outside_of_any_option(stray):
    assert "outside of any option" in refused(*stray)


def test_beams_options_go_to_beam():
    ours, beam = options.parse((*CAPTIONS, "--direct_num_workers", "2", "--input", "a", "--runner=FnApiRunner"))
    assert read_options(IngestOptions, ours).input == ("a",)
    assert beam == ["--direct_num_workers", "2", "--runner=FnApiRunner"]


@pytest.mark.parametrize(
    "option, value",
    [
        ("--shard-size", "0"),
        ("--shard-size", "1.5"),
        ("--window", "none"),
        ("--limit", "-1"),
        ("--timeout", "0"),
        ("--timeout", "nan"),
        ("--patience", "-3"),
        ("--max-source-megapixels", "inf"),
        ("--max-pixels", "10"),
        ("--frames", "0"),
        ("--attempts", "0"),
        ("--dry-run", "0"),
        ("--caption-language", "english please"),
        ("--caption-language", "qq"),
        ("--max-failures", "many"),
        ("--max-failures", "-1"),
        ("--max-failures", "1.5"),
        ("--max-failures", "nan"),
        ("--vllm-args", "'unclosed"),
        ("--captioner", "gpt"),
        ("--source", "zip"),
    ],
)
def test_values_that_cannot_be(option, value):
    message = refused(option, value)
    assert option in message and value in message


@given(st.integers(1, 10**9))
def test_numbers_are_taken_as_they_are(number):
    for text in (str(number), f"{number:_}"):
        assert options.parse((*CAPTIONS, "--shard-size", text))[0].shard_size == number


def test_an_option_without_its_value():
    assert "--window" in refused("--window")
    assert "--window" in refused("--window", "--strict")


def test_abbreviations_are_not_guessed():
    """--in could become another option with the next version."""
    assert "got --in," in refused("--in", "photos")


@pytest.mark.parametrize("stage", options.STAGES)
@pytest.mark.parametrize(("typed", "stages"), BELONGS.items())
def test_an_option_of_another_stage_is_refused(typed, stages, stage):
    """Also where the value is the default: what is typed is believed to have an effect."""
    if stage in stages:
        assert options.parse(("--stage", stage, *typed))[0].stage == stage
        return
    with pytest.raises(UsageError) as caught:
        options.parse(("--stage", stage, *typed))
    message = str(caught.value)
    assert message.startswith(f"{typed[0]} goes with --stage ") and message.endswith("leave it out")
    assert f"got --stage {stage}:" in message and all(name in message for name in stages)


def test_options_of_other_stages_are_told_all_at_once():
    with pytest.raises(UsageError) as caught:
        options.parse(
            ("--stage", "translate", "--image-size=99", "--views", "short", "--filters", "x", "--languages", "de")
        )
    assert str(caught.value) == (
        "--views goes with --stage captions; --filters, --image-size go with --stage pack, got --stage translate: "
        "leave them out"
    )
    with pytest.raises(UsageError, match="--input goes with --stage ingest, captions or translate, got --stage pack"):
        options.parse(("--stage", "pack", "--input", "photos"))


@pytest.mark.parametrize(("typed", "tag"), [("eng", "en"), ("zh_tw", "zh-TW"), ("PT-br", "pt-BR"), ("de", "de")])
def test_the_language_of_captions_has_one_spelling(typed, tag):
    assert options.parse((*CAPTIONS, "--caption-language", typed))[0].caption_language == tag


def test_help_names_units_and_defaults(capsys):
    with pytest.raises(SystemExit) as ended:
        options.parse(("--help",))
    assert ended.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for action in options.parser()._actions:
        assert all(name in text for name in action.option_strings)
    assert "stage ingest" in text and "stage captions" in text
    assert all(f"{stage} " in text for stage in options.STAGES)
    for phrase in (
        "items per shard (default: 1000)",
        "requests in flight per worker process (default: 64)",
        "default: 1%",
    ):
        assert phrase in text

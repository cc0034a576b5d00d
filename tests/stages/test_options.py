"""The command line: checked once, with the nearest spelling of what is misspelt."""

import pytest

from pipeline.errors import UsageError
from pipeline.options import read_options
from stages import options
from stages.ingest import IngestOptions

CAPTIONS = ("--stage", "captions")
# Options by the stages that they go with.
BELONGS = {
    options.STAGES: (("--output", "x"), ("--strict",)),
    ("ingest", "captions", "translate"): (("--input", "x"), ("--caption-language", "en")),
    ("captions",): (("--views", "short"), ("--dry-run", "3")),
    ("captions", "pack"): (("--frames=8",),),  # also where the value is the default
    ("captions", "translate"): (("--mllm", "x"), ("--window", "64")),
    ("translate",): (("--languages", "de"), ("--round-trip",)),
    ("pack",): (("--corpus", "x"), ("--media", "pixels")),
}


def refused(*arguments):
    with pytest.raises(UsageError) as caught:
        options.parse((*CAPTIONS, *arguments))
    return str(caught.value)


@pytest.mark.parametrize(
    "typed, meant",
    [
        (("--inptu", "x"), "did you mean --input?"),
        (("--shard_size=3",), "did you mean --shard-size?"),
        (("--direct_num_worker", "2"), "did you mean --direct_num_workers?"),
        (("--runner", "FlinkRunner", "--inptu", "x"), "did you mean --input?"),
        (("--frobnicate", "x"), "--help"),
        (("--in", "photos"), "got --in,"),  # not guessed: it could become another option with the next version
    ],
)
def test_misspelt_options(typed, meant):
    assert meant in refused(*typed)


def test_another_runner_may_have_options_of_its_own():
    _, beam = options.parse((*CAPTIONS, "--runner", "acme.Runner", "--acme_token", "x"))
    assert beam == ["--runner", "acme.Runner", "--acme_token", "x"]


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
        ("--limit", "-1"),
        ("--timeout", "0"),
        ("--timeout", "nan"),
        ("--max-source-megapixels", "inf"),
        ("--max-pixels", "10"),
        ("--caption-language", "english please"),
        ("--caption-language", "qq"),
        ("--max-failures", "many"),
        ("--max-failures", "1.5"),
        ("--captioner", "gpt"),
        ("--source", "zip"),
    ],
)
def test_values_that_cannot_be(option, value):
    message = refused(option, value)
    assert option in message and value in message


@pytest.mark.parametrize("stage", options.STAGES)
@pytest.mark.parametrize(("stages", "typed"), [(stages, typed) for stages, all in BELONGS.items() for typed in all])
def test_an_option_of_another_stage_is_refused(stages, typed, stage):
    if stage in stages:
        assert options.parse(("--stage", stage, *typed))[0].stage == stage
        return
    with pytest.raises(UsageError) as caught:
        options.parse(("--stage", stage, *typed))
    message = str(caught.value)
    assert message.startswith(f"{typed[0].split('=')[0]} goes with --stage {' or '.join(stages)}")
    assert f"got --stage {stage}:" in message


def test_options_of_other_stages_are_named_all_at_once():
    with pytest.raises(UsageError) as caught:
        options.parse(("--stage", "translate", "--image-size=99", "--views", "short", "--filters", "x"))
    assert all(flag in str(caught.value) for flag in ("--image-size", "--views", "--filters"))


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
    assert "items per shard (default: 1000)" in text and "default: 1%" in text

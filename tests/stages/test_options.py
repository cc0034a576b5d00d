"""The command line: checked once, with the nearest spelling of what is misspelt."""

import pytest

from pipeline.errors import UsageError
from pipeline.options import read_options
from stages import options
from stages.ingest import IngestOptions
from tests.worked_examples import each_example

CAPTIONS = ("--stage", "captions")


def refusal(*arguments):
    with pytest.raises(UsageError) as caught:
        options.parse(arguments)
    return str(caught.value)


@each_example("what_cannot_be_is_refused", "typed, hint")
def test_what_cannot_be_is_refused(typed, hint):
    assert hint in refusal(*CAPTIONS, *typed)


def test_options_of_beam_and_of_other_runners_go_to_beam():
    ours, beam = options.parse((*CAPTIONS, "--direct_num_workers", "2", "--input", "a", "--runner=FnApiRunner"))
    assert read_options(IngestOptions, ours).input == ("a",)
    assert beam == ["--direct_num_workers", "2", "--runner=FnApiRunner"]
    beam = ["--runner", "acme.Runner", "--acme_token", "x"]
    assert options.parse((*CAPTIONS, *beam))[1] == beam


@pytest.mark.parametrize(
    ("typed", "stages"),
    [
        (("--strict",), options.STAGES),
        (("--input", "x"), ("ingest", "captions", "translate", "update")),
        (("--frames=8",), ("captions", "pack", "update")),  # also where the value is the default
        (("--mllm", "x"), ("captions", "translate", "update")),
        (("--corpus", "x"), ("pack", "update")),
    ],
)
def test_an_option_of_another_stage_is_refused(typed, stages):
    for stage in options.STAGES:
        if stage in stages:
            assert options.parse(("--stage", stage, *typed))[0].stage == stage
        else:
            message = refusal("--stage", stage, *typed)
            assert typed[0].split("=")[0] in message and f"--stage {' or '.join(stages)}" in message


@pytest.mark.parametrize(("typed", "tag"), [("eng", "en"), ("zh_tw", "zh-TW"), ("PT-br", "pt-BR"), ("de", "de")])
def test_the_language_of_captions_has_one_spelling(typed, tag):
    assert options.parse((*CAPTIONS, "--caption-language", typed))[0].caption_language == tag

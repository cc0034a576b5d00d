"""Beam's options as the stages use them."""

import pytest
from apache_beam.options.pipeline_options import StandardOptions

from pipeline.engine.beam import LOCAL_RUNNER, beam_options


@pytest.mark.parametrize("arguments", [[], ["--runner", "DirectRunner"]])
def test_runs_are_local_without_a_runner_to_download(arguments):
    assert beam_options(arguments).view_as(StandardOptions).runner == LOCAL_RUNNER

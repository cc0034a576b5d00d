"""Beam's options; that the graph runs under every runner is tests/end_to_end/test_runners.py."""

import importlib.util

import pytest

from pipeline.engine import beam as work
from pipeline.errors import UsageError


@pytest.mark.parametrize("arguments", [[], ["--runner", "DirectRunner"]])
def test_the_default_runner_fetches_nothing(arguments):
    assert work.beam_options(arguments).get_all_options()["runner"].endswith("FnApiRunner")


@pytest.mark.skipif(importlib.util.find_spec("dask") is not None, reason="Dask is installed")
def test_a_missing_dask_is_one_sentence():
    with pytest.raises(UsageError, match=r"pip install 'leccr\[dask\]'"):
        work.beam_options(["--runner", "DaskRunner"])

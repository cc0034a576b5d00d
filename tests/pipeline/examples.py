"""Worked examples: tables of what goes in and what comes out, in the file examples.yaml of an area."""

import functools
from pathlib import Path

import pytest
import yaml


@functools.cache
def read_examples(area):
    """All tables of an area, by name."""
    return yaml.safe_load((Path(__file__).parent / area / "examples.yaml").read_text("utf-8"))


def each_example(area, name, arguments):
    """Run a test with each row of a table."""
    return pytest.mark.parametrize(arguments, read_examples(area)[name])

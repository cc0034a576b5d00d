"""Worked examples: tables of what goes in and what comes out, in the file examples.yaml next to the tests."""

import functools
from pathlib import Path

import pytest
import yaml


@functools.cache
def read_examples(folder):
    """All tables of a folder, by name."""
    return yaml.safe_load((Path(folder) / "examples.yaml").read_text("utf-8"))


def each_example(name, arguments):
    """Run a test with each row of a table."""

    def decorate(test):
        return pytest.mark.parametrize(arguments, read_examples(Path(test.__code__.co_filename).parent)[name])(test)

    return decorate

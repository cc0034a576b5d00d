"""The worked examples in examples.yaml, as parameters of tests."""

from pathlib import Path

import pytest
import yaml

EXAMPLES = yaml.safe_load(Path(__file__).with_name("examples.yaml").read_text("utf-8"))


def each_example(name, arguments):
    """Run a test with each example of that name."""
    return pytest.mark.parametrize(arguments, EXAMPLES[name])

"""Options of a dataclass: on the command line, as text, their bounds and defaults."""

import argparse
import dataclasses
from pathlib import Path

import pytest

from pipeline.options import add_options, option, parse_value, read_options


@dataclasses.dataclass(frozen=True)
class Example:
    frames: int = option(8, "frames of a video", at_least=1)
    share: float = option(0.5, "of the items", at_least=0, at_most=1)
    media: str = option("pixels", "what is stored", choices=("pixels", "reference"))
    folder: Path | None = option(None, "where models are kept")
    languages: tuple[str, ...] = option((), "BCP 47 tags")
    corpus: tuple[str, ...] = option((), "may be repeated", repeat=True)
    round_trip: bool = option(False, "translate back, too")
    text: str = option("", "in lower case", parse=str.lower)
    computed: int = 7


def read(*arguments):
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_options(parser, Example)
    return read_options(Example, parser.parse_args(arguments))


def test_defaults_and_given_values():
    assert read() == Example()
    line = (
        "--frames 1_000 --share 1 --media reference --folder a/b --languages de,cs --corpus a,b --corpus c --round-trip"
    )
    expected = Example(1000, 1.0, "reference", Path("a/b"), ("de", "cs"), ("a,b", "c"), True)
    assert read(*line.split()) == expected
    assert read("--text", "ABC").text == "abc"


@pytest.mark.parametrize("text", ["0", "1.5", "many", "nan", ""])
def test_a_number_outside_its_bounds_is_refused(text):
    with pytest.raises(argparse.ArgumentError, match="not a whole number, at least 1"):
        read("--frames", text)


def test_values_as_text():
    assert parse_value(Example, "round_trip", "yes") is True
    assert parse_value(Example, "languages", "de, cs") == ("de", "cs")
    for name, text in (("round_trip", "maybe"), ("media", "video"), ("share", "inf"), ("folder", " ")):
        with pytest.raises(ValueError, match=" is "):
            parse_value(Example, name, text)

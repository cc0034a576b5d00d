import pytest

from pipeline.quality import surface
from tests.worked_examples import each_example

SOURCE = "A brown dog runs across the wet grass."
GERMAN = "Ein brauner Hund rennt über das nasse Gras."


@each_example("copied", "text, source, language, expected")
def test_copied(text, source, language, expected):
    value = surface.copied(source, text, "en", language)
    assert value == (expected if expected is None else pytest.approx(expected, abs=1e-6))


@each_example("repetition", "text, language, expected")
def test_repetition(text, language, expected):
    assert surface.repetition(SOURCE, text, "en", language) == pytest.approx(expected, abs=1e-6)


@each_example("complete", "text, finished, ratio, expected")
def test_complete(text, finished, ratio, expected):
    assert surface.complete(SOURCE, text, "de", finished, ratio) == pytest.approx(expected)


@each_example("chatter", "frame")
def test_chatter_counts_unless_the_source_has_it(frame):
    assert surface.boilerplate(SOURCE, GERMAN) == 0
    text = frame.format(GERMAN)
    assert surface.boilerplate(SOURCE, text) >= (len(text) - len(GERMAN) - 3) / len(text) * 0.6
    assert surface.boilerplate(frame.format(SOURCE), text) == 0

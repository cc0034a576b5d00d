import pytest

from pipeline.quality import surface
from tests.worked_examples import each_example

SOURCE = "A brown dog runs across the wet grass."
GERMAN = "Ein brauner Hund rennt über das nasse Gras."


def test_length_ratio():
    def ratio(text, source=SOURCE, language="de"):
        return surface.length_ratio(source, text, "en", language)

    assert ratio("") == ratio("… 😀 !") == ratio("", source="") == 0
    assert 0.3 < ratio("Ein brauner Hund") < 0.5 and ratio(GERMAN) == pytest.approx(ratio(2 * GERMAN) / 2)
    assert 0.9 < ratio(GERMAN) < 1.15 and 0.9 < ratio("一只棕色的狗跑过湿草地。", language="zh") < 1.3
    assert ratio(GERMAN, source="") > 10


@each_example("copied", "text, source, language, expected")
def test_copied(text, source, language, expected):
    value = surface.copied(source, text, "en", language)
    assert value == (expected if expected is None else pytest.approx(expected, abs=1e-6))


@each_example("repetition", "text, language, expected")
def test_repetition(text, language, expected):
    assert surface.repetition(SOURCE, text, "en", language) == pytest.approx(expected, abs=1e-6)


def test_a_repeated_phrase_of_forty_words_counts_and_one_that_the_source_repeats_does_not():
    phrase = " ".join(f"w{number}" for number in range(40))
    assert surface.repetition("x", f"{phrase} {phrase}", "en", "de") == pytest.approx(0.5)
    assert surface.repetition("la la la la", "la la la la", "en", "de") == 0


@each_example("complete", "text, finished, ratio, expected")
def test_complete(text, finished, ratio, expected):
    assert surface.complete(SOURCE, text, "de", finished, ratio) == pytest.approx(expected)


def test_no_full_stop_is_missed_where_none_is_usual():
    assert surface.complete("A brown dog", "Ein brauner", "de", True, 0.4) == 1
    assert surface.complete(SOURCE, "หมาสีน้ำตาล", "th", True, 0.4) == 1


@each_example("chatter", "frame")
def test_chatter_counts_unless_the_source_has_it(frame):
    assert surface.boilerplate(SOURCE, GERMAN) == 0
    text = frame.format(GERMAN)
    assert surface.boilerplate(SOURCE, text) >= (len(text) - len(GERMAN) - 3) / len(text) * 0.6
    assert surface.boilerplate(frame.format(SOURCE), text) == 0

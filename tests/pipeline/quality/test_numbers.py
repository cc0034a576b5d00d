from hypothesis import given
from hypothesis import strategies as st

from pipeline.quality.numbers import agreement, number_words, numbers
from tests.worked_examples import each_example


@each_example("numbers", "text, language, expected")
def test_numbers_that_a_text_names(text, language, expected):
    assert dict(numbers(text, language)[0]) == expected


@each_example("agreement", "source, text, language, expected")
def test_agreement(source, text, language, expected):
    assert agreement(source, text, "en", language) == expected
    assert agreement(text, source, language, "en") == expected  # either side may be the source


@given(st.text(max_size=60), st.text(max_size=60), st.sampled_from([*number_words(), "fi", "pt-BR"]))
def test_agreement_is_a_share_for_any_text(source, text, language):
    value = agreement(source, text, "en", language)
    assert value is None or 0 <= value <= 1
    assert agreement(text, text, language, language) in (None, 1)


def test_a_long_text_of_digits_is_read_in_time():
    assert agreement("1" * 20_000, "1 " * 10_000, "en", "de") is not None

from pipeline.quality.numbers import agreement, numbers
from tests.worked_examples import each_example


@each_example("numbers", "text, language, expected")
def test_numbers_that_a_text_names(text, language, expected):
    assert dict(numbers(text, language)[0]) == expected


@each_example("agreement", "source, text, language, expected")
def test_agreement(source, text, language, expected):
    assert agreement(source, text, "en", language) == expected
    assert agreement(text, source, language, "en") == expected  # either side may be the source

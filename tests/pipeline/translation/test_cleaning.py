from hypothesis import given
from hypothesis import strategies as st

from pipeline.translation.cleaning import plain_text, without_marks
from tests.worked_examples import each_example


@each_example("html_becomes_text", "text, plain")
def test_html_becomes_text(text, plain):
    assert plain_text(text) == plain


@each_example("marks_of_models_are_removed_from_a_translation", "text, clean")
def test_marks_of_models_are_removed_from_a_translation(text, clean):
    assert without_marks(text, "A red train.") == clean


def test_marks_that_the_source_has_stay():
    assert without_marks("Le jeton </s> et <b>", "The token </s> and <b>") == "Le jeton </s> et <b>"


@given(st.text(alphabet="<>&;#/b a=\"'!-pr"))
def test_any_text_is_cleaned_once_and_for_all(text):
    plain = plain_text(text)
    assert bool(plain.strip()) == bool(text.strip())

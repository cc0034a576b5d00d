import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.translation.cleaning import plain_text, without_marks


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("Fish &amp; chips, 5&nbsp;&euro; &#8211; &#x2615;", "Fish & chips, 5 € – ☕"),
        ("A sign: &amp;quot;stop&amp;quot;", 'A sign: "stop"'),
        ('<p class="c">A <em>tall</em> tower</p><BR/>at night', "A tall tower at night"),
        ('<a href="x?a=1&b=2">A kite</a> &lt;i&gt;flies&lt;/i&gt;<!-- 3 -->', "A kite flies"),
        ("if a < b and c > d, AT&T; R&D <unk> <3", "if a < b and c > d, AT&T; R&D <unk> <3"),
        ("a<b and c>d &notaword;", "a<b and c>d &notaword;"),
        ("<br/>", "<br/>"),
    ],
)
def test_html_becomes_text(text, plain):
    assert plain_text(text) == plain


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        (">>fra<< Un train rouge.", "Un train rouge."),
        ("▁Un▁train▁rouge.", "Un train rouge."),
        ("fra_Latn Un train rouge.</s>", "Un train rouge."),
        ("<2fr> Un train rouge.<pad><pad>", "Un train rouge."),
        ("__fr__ Un tr@@ ain ro@@ uge.", "Un train rouge."),
        ("Un tr ##ain rouge.", "Un train rouge."),
        ("L&#39;avion <b>rouge</b>.", "L'avion rouge."),
        ("</s>", "</s>"),
    ],
)
def test_marks_of_models_are_removed_from_a_translation(text, clean):
    assert without_marks(text, "A red train.") == clean


def test_marks_that_the_source_has_stay():
    assert without_marks("Le jeton </s> et <b>", "The token </s> and <b>") == "Le jeton </s> et <b>"


@given(st.text(alphabet="<>&;#/b a=\"'!-pr"))
def test_any_text_is_cleaned_once_and_for_all(text):
    plain = plain_text(text)
    assert bool(plain.strip()) == bool(text.strip())

from stages.web.language import language_note
from tests.worked_examples import each_example


@each_example("the_note_names_the_language_if_there_are_words", "text, known, note")
def test_the_note_names_the_language_if_there_are_words(text, known, note):
    answer = language_note(text, frozenset(known))
    assert note in answer and bool(answer) == bool(note)

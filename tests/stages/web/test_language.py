import pytest

from stages.web.language import language_note


@pytest.mark.parametrize(
    ("text", "known", "note"),
    [
        ("eine Katze schläft auf dem Sofa", (), "Your words look like German."),
        ("eine Katze schläft auf dem Sofa", ("de",), "Your words look like German."),
        ("一只猫", (), "Your words look like Chinese."),
        ("猫がいる", (), "Your words look like Japanese."),
        ("قطة سوداء", (), "Your words look like Arabic."),
        ("a cat", (), " or "),  # two that are as likely
        ("kočka spí na pohovce", ("de",), "results may be far off."),
        *((text, (), "") for text in ("", "   ", "123", "😀😀", "x", "\x00\u202e")),
    ],
)
def test_the_note_names_the_language_if_there_are_words(text, known, note):
    answer = language_note(text, frozenset(known))
    assert note in answer and bool(answer) == bool(note)

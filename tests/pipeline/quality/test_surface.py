import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.quality import surface

SOURCE = "A brown dog runs across the wet grass."
GERMAN = "Ein brauner Hund rennt über das nasse Gras."


@pytest.mark.parametrize(
    ("text", "language", "low", "high"),
    [
        (GERMAN, "de", 0.9, 1.15),
        ("", "de", 0, 0),
        ("… 😀 !", "de", 0, 0),
        ("Ein brauner Hund", "de", 0.3, 0.5),
        (2 * GERMAN, "de", 1.8, 2.3),
        ("一只棕色的狗跑过湿草地。", "zh", 0.9, 1.3),
    ],
)
def test_length_ratio(text, language, low, high):
    assert low <= surface.length_ratio(SOURCE, text, "en", language) <= high


def test_a_text_for_an_empty_source_is_too_long():
    assert surface.length_ratio("", GERMAN, "en", "de") > 10
    assert surface.length_ratio("", "", "en", "de") == 0


@pytest.mark.parametrize(
    ("text", "source", "language", "expected"),
    [
        (SOURCE, SOURCE, "de", 1.0),
        (SOURCE.upper(), SOURCE, "de", 1.0),
        (GERMAN, SOURCE, "de", 0.0),
        ("Taxi.", "Taxi.", "de", None),  # rightly equal
        (SOURCE, SOURCE, "en-GB", None),  # one language
        ("", SOURCE, "de", None),
        ("Ein Hund in a park in the city.", "A dog in a park in the city.", "de", 16 / 23),
        ("Ein Boston Terrier rennt im Gras umher.", "A Boston Terrier runs in the grass.", "de", 13 / 32),
        ("Der Mann in Jeans nimmt ein Taxi.", "In a taxi: a man, jeans.", "de", 0.0),  # words in common, none on end
        ("一只狗跑过湿草地在城市里", "Dog", "zh", 0.0),
    ],
)
def test_copied(text, source, language, expected):
    value = surface.copied(source, text, "en", language)
    assert value == (expected if expected is None else pytest.approx(expected))


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        (GERMAN, "de", 0.0),
        ("pom pom", "de", 0.0),
        ("Des pom-pom girls dansent très très vite.", "fr", 0.0),
        ("Ein Hund Hund Hund Hund", "de", 3 / 5),
        ("ein Hund ein Hund ein Hund", "de", 4 / 6),
        ("ein Hund ein Hund ein", "de", 3 / 5),  # broken off in the third round
        ("一只狗一只狗一只狗", "zh", 6 / 9),
        ("", "de", 0.0),
    ],
)
def test_repetition(text, language, expected):
    assert surface.repetition(SOURCE, text, "en", language) == pytest.approx(expected)


def test_a_phrase_of_forty_words_said_twice_repeats_and_one_of_its_source_does_not():
    phrase = " ".join(f"w{number}" for number in range(40))
    assert surface.repetition("x", f"{phrase} {phrase}", "en", "de") == pytest.approx(0.5)
    assert surface.repetition("la la la la", "la la la la", "en", "de") == 0


@pytest.mark.parametrize(
    ("text", "finished", "ratio", "expected"),
    [
        (GERMAN, True, 1.0, 1.0),
        (GERMAN, False, 1.0, 0.0),
        ("„Ein brauner Hund rennt.“", True, 1.0, 1.0),
        ("Ein brauner Hund rennt über das nasse Gras", True, 1.0, 1.0),  # a full stop forgotten
        ("Ein brauner Hund", True, 0.4, 0.5),
        ("Ein brauner Hund rennt über das", True, 0.8, 0.0),
        ("Ein brauner Hund,", True, 0.4, 0.0),
        ("", True, 0.0, 0.0),
    ],
)
def test_complete(text, finished, ratio, expected):
    assert surface.complete(SOURCE, text, "de", finished, ratio) == pytest.approx(expected)


def test_no_full_stop_is_missed_where_none_is_usual():
    assert surface.complete("A brown dog", "Ein brauner", "de", True, 0.4) == 1
    assert surface.complete(SOURCE, "หมาสีน้ำตาล", "th", True, 0.4) == 1


CHATTER = [
    "Here is the translation: {}",
    "Sure! {}",
    "Translation: {}",
    "Hier ist die Übersetzung: {}",
    "German: {}",
    "{} (Note: the dog is brown.)",
    "{}\n\nNote: I kept the word order.",
    "{} Let me know if you need more!",
    "**{}**",
]


@pytest.mark.parametrize("frame", CHATTER)
def test_chatter_counts_unless_the_source_has_it(frame):
    assert surface.boilerplate(SOURCE, GERMAN) == 0
    text = frame.format(GERMAN)
    share = surface.boilerplate(SOURCE, text)
    assert share >= (len(text) - len(GERMAN) - 3) / len(text) * 0.6
    assert surface.boilerplate(frame.format(SOURCE), text) == 0


def test_quotes_and_brackets_count_only_where_the_source_has_none():
    assert surface.boilerplate(SOURCE, f'"{GERMAN}"') == pytest.approx(2 / (len(GERMAN) + 2))
    assert surface.boilerplate(f'"{SOURCE}"', f'"{GERMAN}"') == 0
    assert surface.boilerplate(SOURCE, GERMAN + " (Rasse unklar)") > 0.2
    assert surface.boilerplate(SOURCE + " (breed unclear)", GERMAN + " (Rasse unklar)") == 0


@given(st.text(max_size=80), st.text(max_size=80), st.sampled_from(["de", "zh", "th", "ar", "cs", "xx"]), st.booleans())
def test_scores_are_shares_for_any_text(source, text, language, finished):
    ratio = surface.length_ratio(source, text, "en", language)
    assert ratio >= 0
    shares = [
        surface.copied(source, text, "en", language),
        surface.repetition(source, text, "en", language),
        surface.complete(source, text, language, finished, ratio),
        surface.boilerplate(source, text),
    ]
    assert all(share is None or 0 <= share <= 1 for share in shares)
    assert surface.copied(text, text, "en", language) in (None, 1.0)


@given(st.lists(st.sampled_from("abc"), max_size=30))
def test_repeated_words_are_those_that_a_simple_definition_finds(words):
    repeats = set()
    for period in range(1, len(words) // 2 + 1):
        for start in range(len(words) - max(2 * period, period + surface.MIN_REPEATS) + 1):
            stop = start + period
            while stop < len(words) and words[stop] == words[stop - period]:
                stop += 1
            if stop - start - period >= max(period, surface.MIN_REPEATS):
                repeats |= set(range(start + period, stop))
    assert surface.repeated_share(words) == pytest.approx(len(repeats) / len(words) if words else 0)

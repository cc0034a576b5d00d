import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.quality.numbers import agreement, number_words, numbers

NAMED = [
    ("Two dogs and 23 cats.", "en", {2: 1, 23: 1}),
    ("Twenty-three of two hundred fifty riders.", "en", {23: 1, 250: 1}),
    ("Twenty-one riders, thirty one more.", "en", {21: 1, 31: 1}),
    ("A two-storey house.", "en", {2: 1}),
    ("A 1,000 metre run at 10:30 in 3.5 minutes.", "en", {1000: 1, 10: 1, 30: 1, 3.5: 1}),
    ("Two men, three women.", "en", {2: 1, 3: 1}),
    ("Player #7 passes to number 12.", "en", {7: 1, 12: 1}),
    ("The 2nd rider of the 1960s on an F16 and MP3.", "en", {}),
    ("A man and someone on a tenth bike.", "en", {}),
    ("Dreiundzwanzig Reiter, 1.000 Zuschauer, 2,5 Meter.", "de", {23: 1, 1000: 1, 2.5: 1}),
    ("Zwei Männer, zwei Frauen.", "de", {2: 2}),
    ("Ein Mann mit einer Frau vor einem zweistöckigen Haus.", "de", {}),
    ("Quatre-vingt-dix-sept coureurs et dix-sept autres.", "fr", {97: 1, 17: 1}),
    ("Soixante-quinze et vingt et un.", "fr", {75: 1, 21: 1}),
    ("Dvě ženy se třemi psy, dvaceti pěti lidmi a dvěma koly.", "cs", {2: 2, 3: 1, 25: 1}),
    ("Trinta e dois homens, duas mulheres.", "pt", {32: 1, 2: 1}),
    ("Treinta y dos hombres, veintidós mujeres.", "es", {32: 1, 22: 1}),
    ("Ventitré uomini, ventotto donne, due cani.", "it", {23: 1, 28: 1, 2: 1}),
    ("Drieëntwintig mannen, vijfentwintig vrouwen.", "nl", {23: 1, 25: 1}),
    ("Dwie kobiety i pięciu mężczyzn, dwadzieścia trzy psy.", "pl", {2: 1, 5: 1, 23: 1}),
    ("Двое мужчин, три женщины и двадцать пять собак.", "ru", {2: 1, 3: 1, 25: 1}),
    ("两个人和十二只狗,2人吃三明治。", "zh", {2: 2, 12: 1}),
    ("二人の女性と３匹の犬、二十三本。", "ja", {2: 1, 3: 1, 23: 1}),
]


@pytest.mark.parametrize(("text", "language", "expected"), NAMED)
def test_numbers_that_a_text_names(text, language, expected):
    assert dict(numbers(text, language)[0]) == expected


def test_every_list_has_its_numbers_in_order():
    words = {language: known.cardinals for language, known in number_words().items()}
    for language in ("en", "de", "fr", "cs", "pl", "ru"):
        assert {*range(2, 20), *range(20, 100, 10), 100, 1000} <= set(words[language].values()), language
        assert max(words[language].values()) == 1000
    assert words["cs"]["devadesát"] == words["ru"]["девяносто"] == words["pl"]["dziewięćdziesiąt"] == 90
    assert words["de"]["siebenundvierzig"] == words["nl"]["zevenenveertig"] == 47


PAIRS = [
    ("Two dogs.", "Zwei Hunde.", "de", 1.0),
    ("Two dogs.", "Drei Hunde.", "de", 0.0),
    ("Two dogs.", "Hunde.", "de", 0.75),
    ("Two dogs.", "2 Hunde.", "de", 1.0),
    ("A couple of dogs.", "Zwei Hunde.", "de", 1.0),
    ("Two dogs.", "Ein paar Hunde.", "de", 1.0),
    ("A couple dances.", "Ein Mann tanzt.", "de", None),
    ("A two-storey house.", "Ein zweistöckiges Haus.", "de", 1.0),
    ("A three-storey house.", "Třípatrový dům.", "cs", 1.0),
    ("A dozen eggs.", "Zwölf Eier.", "de", 1.0),
    ("Three men, two dogs.", "Trois hommes, quatre chiens.", "fr", 0.5),
    ("Twenty-one men.", "Vingt et un hommes.", "fr", 1.0),
    ("Two men and a woman.", "Dva muži a žena.", "cs", 1.0),
    ("Two men and a woman.", "Čtyři muži a žena.", "cs", 0.0),
    ("The player with the number 23.", "Hráč s číslem 32.", "cs", 0.0),
    ("Three sandwiches.", "三明治。", "zh", 0.75),
    ("Two dogs.", "Due cani.", "it", 1.0),
    ("Two dogs, 12 cats.", "Kaksi koiraa, 12 kissaa.", "fi", 1.0),  # no list of words: only digits
    ("Two dogs, 12 cats.", "Kaksi koiraa, 13 kissaa.", "fi", 0.0),
    ("A dog.", "Ein Hund.", "de", None),
]


@pytest.mark.parametrize(("source", "text", "language", "expected"), PAIRS)
def test_agreement(source, text, language, expected):
    assert agreement(source, text, "en", language) == expected
    assert agreement(text, source, language, "en") == expected  # either side may be the source


@given(st.text(max_size=60), st.text(max_size=60), st.sampled_from([*number_words(), "fi", "pt-BR"]))
def test_agreement_is_a_share_for_any_text(source, text, language):
    value = agreement(source, text, "en", language)
    assert value is None or 0 <= value <= 1
    same = agreement(text, text, language, language)
    assert same is None or same == 1


def test_a_long_text_of_digits_is_read_in_time():
    assert agreement("1" * 20_000, "1 " * 10_000, "en", "de") is not None

from stages.retrieval.language import QueryTranslator, unknown_language
from tests.worked_examples import each_example


@each_example("a_language_that_an_index_does_not_know_is_named", "text, known, tag")
def test_a_language_that_an_index_does_not_know_is_named(text, known, tag):
    assert unknown_language(text, known) == tag


def test_a_query_is_translated_where_the_index_does_not_know_its_language():
    translate = QueryTranslator("embedded", ["en", "de"])
    text, note = translate("um cão corre na praia")
    assert "dog" in text and "beach" in text and "Portuguese" in note and text in note
    assert translate("ein Hund am Strand") == ("ein Hund am Strand", "")
    text, note = translate("kočka spí na pohovce")
    assert text == "kočka spí na pohovce" and "not translated" in note and "Czech" in note
    assert "--translate" in QueryTranslator("", ["de"])("kočka spí na pohovce")[1]

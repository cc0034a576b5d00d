import pytest

from pipeline.errors import UsageError
from stages.retrieval.corpus_items import Browser, read_card
from tests.stages.browsable import write_browsable
from tests.stages.corpora import write_training_corpus
from tests.stages.fake_finder import ITEMS


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_browsable(tmp_path_factory.mktemp("browsable") / "squares")


def test_pages_cover_every_item_once_in_order_whatever_their_size(corpus):
    browser = Browser(corpus)
    assert len(browser) == len(ITEMS)
    for size in range(1, 7):
        pages = [browser.page(start, size) for start in range(0, len(ITEMS), size)]
        assert [row["item_id"] for page in pages for row in page] == list(ITEMS)
    assert browser.page(len(ITEMS), 3) == []


def test_an_item_has_its_own_texts_and_scores(corpus):
    browser = Browser(corpus)
    for item_id in ITEMS:
        item = browser.item(item_id)
        assert item.facts["item_id"] == item_id and "uri" not in item.facts
        assert [caption["text"] for caption in item.captions] == [f"caption {item_id}"]
        assert item.descriptions[0]["text"].startswith(f"objects of {item_id}")
        assert item.translations[0]["scores"]["quality"] == 0.75 and item.translations[0]["flags"] == ["copied"]
    with pytest.raises(KeyError):
        browser.item("another")


def test_a_packed_corpus_has_translations_with_what_they_are_of(tmp_path):
    browser = Browser(write_training_corpus(tmp_path, items=10))
    item = browser.item(browser.page(0, 1)[0]["item_id"])
    assert [caption["language"] for caption in item.captions] == ["en", "en"]
    assert {row["target_language"] for row in item.translations} == {"de", "fr"}
    by_language = {row["target_language"]: row for row in item.translations}
    assert by_language["de"]["source_text"] in [caption["text"] for caption in item.captions]
    assert 0 < by_language["de"]["scores"]["quality"] < 1 and "media" not in item.facts
    assert item.descriptions


def test_a_card_is_shown_without_what_would_be_fetched(corpus, tmp_path):
    text = read_card(corpus)
    assert "# The squares" in text and "license: mit" not in text and "example.com" not in text
    assert read_card(tmp_path) == ""


def test_a_folder_that_is_not_a_corpus_is_refused(tmp_path):
    with pytest.raises(UsageError, match="pack"):
        Browser(tmp_path)

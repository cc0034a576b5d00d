import pytest

from pipeline.errors import UsageError
from stages.retrieval.corpus_browser import Browser, card
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


def test_an_item_has_its_own_texts_and_scores_by_row_and_by_name(corpus):
    browser = Browser(corpus)
    for row, item_id in enumerate(ITEMS):
        shown = browser.item(row)
        assert shown == browser.named(item_id)
        assert shown.told["item_id"] == item_id and "uri" not in shown.told
        assert [one["text"] for one in shown.captions] == [f"caption {item_id}"]
        assert shown.descriptions[0]["text"].startswith(f"objects of {item_id}")
        assert shown.translations[0]["scores"]["quality"] == 0.75 and shown.translations[0]["flags"] == ["copied"]
    with pytest.raises(IndexError):
        browser.item(len(ITEMS))
    with pytest.raises(KeyError):
        browser.named("another")


def test_a_packed_corpus_has_translations_with_what_they_are_of(tmp_path):
    browser = Browser(write_training_corpus(tmp_path, items=10))
    shown = browser.item(0)
    assert [caption["language"] for caption in shown.captions] == ["en", "en"]
    assert {one["target_language"] for one in shown.translations} == {"de", "fr"}
    by_language = {one["target_language"]: one for one in shown.translations}
    assert by_language["de"]["source_text"] in [caption["text"] for caption in shown.captions]
    assert 0 < by_language["de"]["scores"]["quality"] < 1 and "media" not in shown.told
    assert shown.descriptions and shown == browser.named(shown.told["item_id"])


def test_a_card_is_shown_without_what_would_be_fetched(corpus, tmp_path):
    text = card(corpus)
    assert "# The squares" in text and "license: mit" not in text and "example.com" not in text
    assert card(tmp_path) == ""


def test_a_folder_that_is_no_corpus_is_refused(tmp_path):
    with pytest.raises(UsageError, match="is not there"):
        Browser(tmp_path)

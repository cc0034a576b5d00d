import pytest

from stages.retrieval.corpus_items import Browser
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


def test_a_packed_corpus_has_its_translations_among_the_captions(tmp_path):
    browser = Browser(write_training_corpus(tmp_path, items=10))
    item = browser.item(browser.page(0, 1)[0]["item_id"])
    assert {caption["language"] for caption in item.captions} == {"en", "de", "fr"} and "media" not in item.facts
    assert item.descriptions

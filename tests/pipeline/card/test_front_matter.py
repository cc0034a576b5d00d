"""The licence, size and tags that the Hub shows of a corpus."""

from huggingface_hub import DatasetCard

from pipeline.card.card import CARD, hub_license, write_card
from tests.corpora import item, source, training, translation, write_corpus, write_table
from tests.worked_examples import each_example


@each_example("the_licence_is_named_where_all_items_share_one_that_the_hub_knows", "licences, expected")
def test_the_licence_is_named_where_all_items_share_one_that_the_hub_knows(licences, expected):
    assert hub_license(licences) == expected


def data_of(corpus):
    write_card(corpus)
    return DatasetCard.load(corpus / CARD).data


@each_example("a_model_that_forbids_what_the_items_allow", "items, model, expected")
def test_a_model_that_forbids_what_the_items_allow(tmp_path, items, model, expected):
    translators = {"de": {"name": "m", "revision": "", "license": model}}
    corpus = write_corpus(tmp_path / "own", items=[[item("a.png", license=items)]])
    write_table(corpus, "translations", [[translation("a.png#en#0")]], translators=translators)
    sources = [source("own", {items: 1}, translators=translators)]
    row = training("a.png", {"de": "x"}, license=items)
    packed = write_table(tmp_path / "packed", "training", [[row]], extra={"sources": sources})
    assert data_of(corpus).license == data_of(packed).license == expected


def test_the_licence_of_packed_corpora_is_that_of_all(tmp_path):
    row = training("a.png", {"en": "x"}, license="CC BY 4.0")
    sources = [source("one", {"CC BY 4.0": 1}), source("other", {"CC0": 3})]
    for count, expected in ((0, "cc-by-4.0"), (1, "cc-by-4.0"), (2, "other")):
        corpus = write_table(tmp_path / "packed", "training", [[row]], extra={"sources": sources[:count]})
        assert data_of(corpus).license == expected


def test_only_texts_by_models_are_tagged_as_synthetic(tmp_path):
    for descriptions, tags in (([], []), ([{"view": "short", "text": "y"}], ["synthetic"])):
        row = training("a.png", {"en": "x"}, descriptions=descriptions)
        assert data_of(write_table(tmp_path / "packed", "training", [[row]])).tags == ["caption-corpus", *tags]

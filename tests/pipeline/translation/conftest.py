"""Models for the tests of translators: made once a session, on the spot."""

import pytest

from pipeline.translation.choose import TranslatorOptions
from tests.marian import make_marian, toy_pairs

SEEN = 600  # sentences of the grammar that the models were trained on; the others are for tests


def options(**given):
    """Options that run on a CPU with greedy decoding, where `given` does not say otherwise."""
    return TranslatorOptions(**{"mt_device": "cpu", "beam_size": 1, **given})


@pytest.fixture(scope="session")
def unseen():
    """English sentences with their German translations, none of which the models have seen."""
    return toy_pairs("de")[SEEN : SEEN + 240]


@pytest.fixture(scope="session")
def marian(tmp_path_factory):
    """A checkpoint of one pair, en to de, as an OPUS-MT folder is."""
    folder = tmp_path_factory.mktemp("models") / "opus-mt-en-de"
    return make_marian(folder, toy_pairs("de")[:SEEN], steps=350, vocabulary=120, batch=32, layers=1)


@pytest.fixture(scope="session")
def marian_of_two(tmp_path_factory):
    """A checkpoint of two target languages, told apart by >>deu<< and >>fra<<."""
    pairs = [(f">>{tag}<< {source}", target) for tag, language in (("deu", "de"), ("fra", "fr"))
             for source, target in toy_pairs(language)[: SEEN // 2]]  # fmt: skip
    folder = tmp_path_factory.mktemp("models") / "opus-mt-en-mul"
    return make_marian(folder, pairs, steps=350, vocabulary=150, batch=32, layers=1)


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """Where converted models are kept."""
    return tmp_path_factory.mktemp("converted")

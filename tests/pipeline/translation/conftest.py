"""Models for the tests of translators, made once per session."""

import pytest

from pipeline.translation.choose import TranslatorOptions
from tests.marian import shared_marian, toy_pairs

TRAINING_PAIRS = 600  # of the grammar; the other sentences are for tests


def options(**values):
    """Options that run on a CPU with greedy decoding, unless `values` say otherwise."""
    return TranslatorOptions(**{"mt_device": "cpu", "beam_size": 1, **values})


@pytest.fixture(scope="session")
def unseen():
    """English sentences with their German translations, none of which the models were trained on."""
    return toy_pairs("de")[TRAINING_PAIRS : TRAINING_PAIRS + 240]


@pytest.fixture(scope="session")
def marian(tmp_path_factory):
    """A checkpoint of one pair, en to de, like an OPUS-MT folder."""
    pairs = toy_pairs("de")[:TRAINING_PAIRS]
    return shared_marian(tmp_path_factory, "opus-mt-en-de", pairs, steps=350, vocabulary=120, batch=32, layers=1)


@pytest.fixture(scope="session")
def marian_of_two(tmp_path_factory):
    """A checkpoint with two target languages, chosen by >>deu<< and >>fra<<."""
    pairs = [
        (f">>{tag}<< {source}", target)
        for tag, language in (("deu", "de"), ("fra", "fr"))
        for source, target in toy_pairs(language)[: TRAINING_PAIRS // 2]
    ]
    return shared_marian(tmp_path_factory, "opus-mt-en-mul", pairs, steps=350, vocabulary=150, batch=32, layers=1)


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """The folder of converted models."""
    return tmp_path_factory.mktemp("converted")

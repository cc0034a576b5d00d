"""A model in Sentence Transformers: the vectors, and so the ranking, that it has here without descriptions."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from tests.model.towers import processor, tiny_model
from tests.stages.corpora import picture, said

sentence_transformers = pytest.importorskip("sentence_transformers")


@pytest.mark.parametrize("slots", ["views", "none"])
def test_the_vectors_are_those_without_descriptions(tmp_path, slots):
    from model.encoders.sentence_towers import Towers

    of = processor()
    model = tiny_model(of.vocabulary, slots=slots).eval()
    pictures = [Image.open(io.BytesIO(picture(number))) for number in range(3)]
    texts = [said(number, "de", 0) for number in range(4)]
    saved = sentence_transformers.SentenceTransformer(modules=[Towers(model, of)])
    saved.save_pretrained(str(tmp_path), create_model_card=False)
    loaded = sentence_transformers.SentenceTransformer(str(tmp_path), trust_remote_code=True)
    with torch.inference_mode():
        media_NE, _ = model.encode_media(of.media([[picture] for picture in pictures]), of.descriptions([[]] * 3))
        text_ME = model.encode_text(of.texts(texts))
    np.testing.assert_allclose(loaded.encode(pictures), media_NE, atol=1e-5)
    np.testing.assert_allclose(loaded.encode(texts, batch_size=2), text_ME, atol=1e-5)
    assert loaded.get_embedding_dimension() == media_NE.shape[1]


def test_slots_that_are_queries_have_no_single_vector():
    from model.encoders.sentence_towers import Towers

    of = processor()
    with pytest.raises(ValueError, match="several vectors"):
        Towers(tiny_model(of.vocabulary, slots="queries", heads="random"), of)

"""An adapted dual encoder in Sentence Transformers, where this package is not installed."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from tests.conftest import clean_environment
from tests.model.towers import picture
from tests.stages.duals import adapted

sentence_transformers = pytest.importorskip("sentence_transformers")
from model.encoders.sentence_export import export_towers  # noqa: E402

TEXTS = ["red green", "blau " * 40, "dunkel"]
PICTURES = [picture(0), picture(1, (90, 33))]


def vectors(model, of):
    with torch.no_grad():
        media_BE, _ = model.encode_media(of.media([[each] for each in PICTURES]), of.descriptions([[], []]))
        return model.encode_text(of.texts(TEXTS)).numpy(), media_BE.numpy()


@pytest.mark.parametrize("kind", ["clip", "metaclip_2", "siglip"])
def test_the_vectors_are_the_same(tmp_path, kind, monkeypatch):
    model, of = adapted(tmp_path, kind)
    texts_ME, media_NE = vectors(model, of)
    export_towers(model, of, tmp_path / "best-st")
    for package in ("model", "leccr"):
        monkeypatch.setitem(sys.modules, package, None)
    loaded = sentence_transformers.SentenceTransformer(str(tmp_path / "best-st"), device="cpu")
    np.testing.assert_allclose(loaded.encode(TEXTS, batch_size=2), texts_ME, atol=1e-5)
    np.testing.assert_allclose(loaded.encode(PICTURES), media_NE, atol=1e-5)
    assert loaded.get_embedding_dimension() == media_NE.shape[1]


@pytest.mark.parametrize(
    ("kind", "policy", "message"),
    [("altclip", {}, "is not a CLIP"), ("siglip2", {}, "is not a CLIP"), ("clip", {"max_words": 3}, "would differ by")],
)
def test_what_its_modules_cannot_express_is_refused(tmp_path, kind, policy, message):
    with pytest.raises(ValueError, match=message):
        export_towers(*adapted(tmp_path, kind, **policy), tmp_path / "best-st")


ALONE = """
import sys
sys.modules |= dict.fromkeys(("model", "stages", "pipeline", "leccr"))  # cannot be imported
import numpy as np
from PIL import Image
from sentence_transformers import SentenceTransformer
model = SentenceTransformer(sys.argv[1])
np.savez(sys.argv[2], model.encode(sys.argv[5:]), model.encode([Image.open(name) for name in sys.argv[3:5]]))
"""


@pytest.mark.torture  # a process
def test_it_loads_where_this_package_cannot_be_imported(tmp_path):
    model, of = adapted(tmp_path, "siglip")
    expected = vectors(model, of)
    export_towers(model, of, tmp_path / "best-st")
    for number, each in enumerate(PICTURES):
        each.save(tmp_path / f"{number}.png")
    given = [tmp_path / "best-st", tmp_path / "out.npz", tmp_path / "0.png", tmp_path / "1.png", *TEXTS]
    subprocess.run([sys.executable, "-c", ALONE, *map(str, given)], check=True, env=clean_environment())
    with np.load(tmp_path / "out.npz") as saved:
        for values, vectors_E in zip(saved.values(), expected, strict=True):
            np.testing.assert_allclose(values, vectors_E, atol=1e-5)

"""A model in Sentence Transformers: the vectors, and so the ranking, that it has here without descriptions."""

import io
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import clean_environment
from tests.http_servers import serving
from tests.hub import Hub
from tests.model.towers import processor, tiny_model
from tests.stages.corpora import picture, said
from tests.stages.indexed import write_model

sentence_transformers = pytest.importorskip("sentence_transformers")
PICTURES = [Image.open(io.BytesIO(picture(number))) for number in range(3)]
TEXTS = [said(number, "de", 0) for number in range(4)]


@pytest.mark.parametrize("slots", ["views", "none"])
def test_the_vectors_are_those_without_descriptions(tmp_path, slots):
    of = processor()
    model = tiny_model(of.vocabulary, slots=slots).eval()
    write_model(tmp_path, slots=slots)
    loaded = sentence_transformers.SentenceTransformer(str(tmp_path), trust_remote_code=True)
    items = [*([picture] for picture in PICTURES), PICTURES]
    with torch.inference_mode():
        media_NE, _ = model.encode_media(of.media(items), of.descriptions([[]] * 4))
        text_ME = model.encode_text(of.texts(TEXTS))
    video = np.stack(PICTURES)
    for given in (PICTURES, [{"image": each} for each in PICTURES]):
        np.testing.assert_allclose(loaded.encode(given), media_NE[:3], atol=1e-5)
    for given in (video, torch.from_numpy(video).permute(0, 3, 1, 2), {"array": video, "video_metadata": {"fps": 1}}):
        np.testing.assert_allclose(loaded.encode([given]), media_NE[3:], atol=1e-5)
    np.testing.assert_allclose(loaded.encode(TEXTS, batch_size=2), text_ME, atol=1e-5)
    assert loaded.get_embedding_dimension() == media_NE.shape[1]


def test_slots_that_are_queries_have_no_single_vector(tmp_path):
    from model.encoders.sentence_towers import Towers

    with pytest.raises(ValueError, match="several vectors"):
        Towers.load(str(write_model(tmp_path)))
    assert not (tmp_path / "modules.json").exists()


SHARED = """
import sys
from sentence_transformers import SentenceTransformer
from model.modeling import LeccrModel
from model.processing import LeccrProcessor
from stages.scoring.checkpoint import find_checkpoint
for part in (LeccrModel, LeccrProcessor):
    part.from_pretrained(sys.argv[1]).push_to_hub("me/model")
assert find_checkpoint("me/model").model_type == "leccr"
model, of, _ = find_checkpoint("me/model").load()
st = SentenceTransformer("me/model", trust_remote_code=True)
st.push_to_hub("me/model", exist_ok=True)
print(abs(model.encode_text(of.texts(["rot"])).detach().numpy() - st.encode(["rot"])).max() < 1e-5)
"""


@pytest.mark.torture  # a process
def test_model_and_processor_are_pushed_and_come_back_as_both_kinds_of_model(tmp_path):
    write_model(tmp_path / "best", slots="views")
    (tmp_path / "hub").mkdir()
    with serving(Hub, folder=tmp_path / "hub", puts=[], delay_s=0.0) as server:
        settings = {"HF_ENDPOINT": server.url, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(tmp_path), "HF_TOKEN": "hf_x"}
        command = [sys.executable, "-c", SHARED, tmp_path / "best"]
        environment = clean_environment(**settings, HF_HUB_OFFLINE="0")
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1:] == ["True"], done.stderr

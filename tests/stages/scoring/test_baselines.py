"""Baselines give the vectors of the model itself, whatever else is in the batch; other models are refused."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from pipeline.errors import UsageError
from stages.scoring.baselines import load_baseline
from stages.scoring.checkpoint import find_checkpoint
from tests.stages.duals import KINDS, write_dual

TEXTS = ["red", "Rot grün blau dunkel hell", "pale " * 60, ""]


@pytest.fixture(scope="module", params=KINDS)
def dual(request, tmp_path_factory):
    folder = write_dual(tmp_path_factory.mktemp(request.param), request.param)
    return request.param, folder, *load_baseline(str(folder))


def pictures(*seeds):
    return [
        Image.fromarray(np.random.default_rng(seed).integers(0, 255, (40, 48, 3), dtype=np.uint8)) for seed in seeds
    ]


def test_a_video_is_the_mean_of_its_frames(dual):
    _, _, model, processor = dual
    frames = pictures(5, 6, 7)
    with torch.no_grad():
        mixed, _ = model.encode_media(processor.media([[frames[0]], frames, frames[1:]]), processor.descriptions([[]]))
        single, _ = model.encode_media(processor.media([[frame] for frame in frames]), processor.descriptions([[]]))
    for row, frames_FE in enumerate((single[:1], single, single[1:])):
        mean = frames_FE.mean(0)
        assert torch.allclose(mixed[row], mean / mean.norm(), atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_baseline_is_refused(tmp_path, kind):
    folder = write_dual(tmp_path, kind)
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if "text" in name and "weight" in name)
    for damaged in (
        {key: value for key, value in weights.items() if key != name},
        {**weights, name: torch.zeros(3, 5)},
    ):
        save_file(damaged, folder / "model.safetensors")
        with pytest.raises(UsageError, match=r"1 weights are missing or of other sizes \(text_model"):
            load_baseline(str(folder))
    (folder / "model.safetensors").write_bytes(b"cut off")
    with pytest.raises(UsageError, match="cannot be loaded"):
        find_checkpoint(str(folder)).load()
    for file in folder.glob("tokenizer*"):
        file.unlink()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UsageError, match=r"cannot be loaded|has no vocabulary"):
        find_checkpoint(str(folder)).load()

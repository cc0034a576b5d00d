"""Pixels are those of the model's own image processor, however its preprocessor_config.json is set."""

import pytest
import torch
from transformers import AutoImageProcessor

from model.encoders import load_media_encoder
from model.processing import LeccrProcessor
from tests.model.towers import picture, vision_towers, write_picture_settings
from tests.worked_examples import each_example


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tower")
    vision_towers()["clip"]().save_pretrained(folder)
    return folder


@each_example("pixels_are_those_of_the_models_own_processor", "more")
def test_pixels_are_those_of_the_models_own_processor(folder, tmp_path, more):
    write_picture_settings(folder, **more)
    if more.get("nested"):  # as Transformers 5 saves it with a tokenizer
        text = (folder / "preprocessor_config.json").read_text()
        (folder / "preprocessor_config.json").rename(folder / "processor_config.json")
        (folder / "processor_config.json").write_text(f'{{"image_processor": {text}}}')
    own = AutoImageProcessor.from_pretrained(folder)
    created = LeccrProcessor.create(str(folder), "tiny")
    created.tokenizer = b""
    created.save_pretrained(tmp_path)
    encoder, _ = load_media_encoder(str(folder))
    pictures = [picture(0), picture(1, (90, 33)), picture(2, (20, 25)), picture(3, (32, 32))]
    for of in (created, LeccrProcessor.from_pretrained(tmp_path)):
        frames = of.media([[each] for each in pictures]).frames[:, 0]
        assert frames.dtype == torch.uint8
        pixels = (frames / 255 - encoder.mean) / encoder.std
        expected = torch.cat([own(images=[each], return_tensors="pt")["pixel_values"] for each in pictures]).float()
        torch.testing.assert_close(pixels, expected, rtol=1e-5, atol=1e-5)


@each_example("other_preprocessing_is_refused", "more, message")
def test_other_preprocessing_is_refused(folder, more, message):
    (folder / "processor_config.json").unlink(missing_ok=True)
    write_picture_settings(folder, **more)
    with pytest.raises(ValueError, match=message):
        LeccrProcessor.create(str(folder), "tiny")

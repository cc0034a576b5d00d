import json

import numpy as np
import pytest
import torch
from transformers import Idefics3ForConditionalGeneration, Idefics3Processor

from bench import scene_captioner
from bench.scene_captioner import RATE, Scenes, Teacher, examined, learn, make_model, make_processor
from pipeline.captioning.captioners import question
from pipeline.captioning.prompts import BUILT_IN

PROMPTS = [question(view, []) for view in BUILT_IN.values()]


@pytest.fixture(scope="module")
def scenes():
    return Scenes(6, seed=3)


@pytest.fixture(scope="module")
def processor(scenes):
    return make_processor([text for views in scenes.descriptions for text in views.values()], PROMPTS)


def test_what_is_to_be_said_is_the_answer_and_nothing_else(scenes, processor, monkeypatch):
    monkeypatch.setattr(scene_captioner, "BATCH", 8)
    batch = Teacher(scenes, processor).batch(np.random.default_rng(0))
    said = batch["labels"] != -100
    assert torch.equal(batch["input_ids"][said], batch["labels"][said])
    image = processor.tokenizer.convert_tokens_to_ids("<image>")
    assert ((batch["input_ids"] == image).sum(1) == 16).all() and not (batch["labels"] == image).any()
    texts = {text for views in scenes.descriptions for text in views.values()}
    for row, mask in zip(batch["labels"], said, strict=True):
        assert row[mask][-1] == processor.tokenizer.eos_token_id
        assert processor.tokenizer.decode(row[mask][:-1]).removeprefix(" ") in texts
    # the server puts the same tokens before an answer as the teacher
    rows = [processor.tokenizer.decode(row) for row in batch["input_ids"]]
    assert all(any(f"{prompt}<end_of_utterance>\nAssistant:" in row for prompt in PROMPTS) for row in rows)


@pytest.mark.torture
def test_it_learns_is_saved_and_is_examined(scenes, processor, monkeypatch, tmp_path):
    monkeypatch.setattr(scene_captioner, "BATCH", 8)
    torch.manual_seed(0)
    model, teacher = make_model(processor), Teacher(scenes, processor)

    def loss():
        with torch.no_grad():
            return model(**teacher.batch(np.random.default_rng(5))).loss.item()

    before = loss()
    assert (
        learn(model, lambda random: model(**teacher.batch(random)).loss, 2 / 60, RATE, seed=0) >= 1 and loss() < before
    )
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again = Idefics3ForConditionalGeneration.from_pretrained(tmp_path)
    monkeypatch.setitem(BUILT_IN, "detail", BUILT_IN["short"])
    few = Scenes(2, seed=4)
    found = examined(again, Idefics3Processor.from_pretrained(tmp_path), few)
    assert found.keys() == BUILT_IN.keys() and all(0 <= x["exact"] <= x["words"] <= 1 for x in found.values())
    assert json.dumps(found)

"""The photographs' captioner: what it learns from, what it says of a picture, and how it is asked."""

import base64
import hashlib
import json
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import torch
from torch.nn.functional import one_hot

from bench import photos_captioner
from bench.photos_captioner import FOLDS, PROMPTS

ANIMALS = ("dog", "cat", "horse")


def ask(url, picture, prompt):
    image = {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{base64.b64encode(picture).decode()}"}}
    body = {"messages": [{"role": "user", "content": [image, {"type": "text", "text": prompt}]}]}
    request = urllib.request.Request(
        f"{url}/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response)["choices"][0]["message"]["content"]


def test_a_model_learns_from_the_folds_of_others_only(monkeypatch):
    """The captions of fold 0, most of all, are of other animals: a model that has seen them would say so."""
    small = {"EPOCHS": 60, "RATE": 1e-2, "EMBEDDED": 48, "HIDDEN": 64, "ATTENDED": 64}
    for name, value in small.items():
        monkeypatch.setattr(photos_captioner, name, value)
    kinds, folds = torch.arange(60) % 3, torch.tensor([0] * 40 + [1] * 10 + [2] * 10)
    cells = one_hot(kinds, photos_captioner.COMPONENTS)[:, None].half()
    names, means = [f"{number}.jpg" for number in range(60)], one_hot(kinds, photos_captioner.GRID_WIDTH).half()
    animals = [ANIMALS[(kind + (fold == 0)) % 3] for kind, fold in zip(kinds.tolist(), folds.tolist(), strict=True)]
    captions = {name: [f"A {animal} runs ."] for name, animal in zip(names, animals, strict=True)}
    hashes = [f"{fold:08x}{number}" for number, fold in enumerate(folds.tolist())]
    features = {"names": names, "hashes": hashes, "cells": cells, "means": means}
    model = photos_captioner.train(features, captions, set(names), 0)
    described = photos_captioner.describe(hashes[:3], [model] * FOLDS, features)
    assert [views[0] for views in described] == [f"A {animal} runs." for animal in ANIMALS]
    assert all(len(views) == len(PROMPTS) for views in described)


def test_every_view_of_a_picture_is_answered_and_a_picture_is_described_once():
    described = []

    def describe(hashes):
        described.extend(hashes)
        return [[f"{name} {view}" for view in PROMPTS] for name in hashes]

    asked = [(picture, view) for picture in (b"one", b"two", b"three") for view in PROMPTS]
    with photos_captioner.served(describe) as url, ThreadPoolExecutor(12) as pool:
        prompts = [PROMPTS[view].replace("{media}", "picture") for _, view in asked]
        answers = list(pool.map(ask, [url] * len(asked), [picture for picture, _ in asked], prompts))
    assert answers == [f"{hashlib.sha256(picture).hexdigest()} {view}" for picture, view in asked]
    assert len(described) == len(set(described)) == 3

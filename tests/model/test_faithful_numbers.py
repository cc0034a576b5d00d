"""Every number of the objective once more, from the towers' outputs on, as the released code computes it.

In plain NumPy, one item at a time and without padding, so that the model's masks are held against lengths. Weights and
towers' outputs lie in tests/golden; `python -m tests.model.test_faithful_numbers` draws them anew.

B samples · F frames · P tokens a frame · N visual tokens · T description tokens · K slots · D, W, E widths
"""

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from torch import nn

import model.modeling
from model.batch import Batch, Media, Texts
from model.config import LeccrConfig
from model.encoders.frames import AttentionReader, FrameEncoder
from model.objective import objective
from tests.conftest import ROOT
from tests.model.towers import FAITHFUL, PAPER

FIXTURE = ROOT / "tests" / "golden" / "faithful_numbers.safetensors"
SHAPE = {
    "slots": "queries",
    "heads": "random",
    "embed_dim": 7,
    "num_slots": 3,
    "slot_layers": 3,
    "interaction_layers": 2,
    "num_heads": 3,
}
B, F, P, D, T, W = 6, 4, 3, 12, 8, 10
READER_LAYERS = 2
INPUTS = ("frames", "frame_count", "described", "is_described", "source", "target", "ids", "weights")
AS_RELEASED = {
    "slot_init": "zero",
    "normalize_slots": False,
    "caption_vision_axis": "tokens",
    "description_encoder": "shared",
}
WEIGHTS = {"diversity_weight": 0.03, "distillation_weight": 0.3, "local_weight": 0.05, "caption_vision_weight": 0.02}
SHARP = {"teacher_temperature": 0.2, "student_temperature": 0.3, "caption_vision_temperature": 0.5}
AS_RELEASED_VIDEO = AS_RELEASED | {"caption_vision_padding": True}
VIDEO = "faithful on features of frames"
CASES = {  # whether as released, whether the queries are what they were at the start, the objective
    "faithful at the start": (True, True, FAITHFUL),
    "faithful, trained": (True, False, replace(FAITHFUL, **WEIGHTS)),
    VIDEO: (True, False, replace(FAITHFUL, **WEIGHTS, caption_vision_columns="rank")),
    "paper": (False, False, PAPER),
    "paper, other weights": (False, False, replace(PAPER, **WEIGHTS, **SHARP, teacher_weight=0.6)),
}


class Recorded(nn.Module):
    """A text tower's outputs, given as its inputs: states, the first of them the summary."""

    width = pooled_width = W

    def forward(self, texts):
        return texts.tokens, texts.tokens[:, 0]


def make_model(monkeypatch, video=False, **settings):
    eye = FrameEncoder(nn.Flatten(2), D, (0.0,) * 3, (1.0,) * 3)  # the 3 channels are the P tokens
    reader = AttentionReader(D, READER_LAYERS, SHAPE["num_heads"])
    monkeypatch.setattr(model.modeling, "build_media_encoder", lambda spec: reader if video else eye)
    monkeypatch.setattr(model.modeling, "build_text_encoder", lambda spec: Recorded())
    return model.modeling.LeccrModel(LeccrConfig(**SHAPE | settings)).double().eval()


def draw_weights(of, rng):
    shapes = {name: tuple(x.shape) for name, x in of.state_dict().items()}
    shapes |= {name.replace("weight", "bias"): (D,) for name in shapes if name.endswith("key.weight")}
    values = {}
    for name, shape in shapes.items():
        spread = 1.6 / math.sqrt(shape[-1]) if len(shape) == 2 else 0.4
        values[name] = rng.normal(1 if name.endswith("norm.weight") else 0, spread, shape)
    return values


def make_fixture(path):
    rng = np.random.default_rng(20)
    with pytest.MonkeyPatch.context() as patch:
        values = draw_weights(make_model(patch), rng)
    values |= {"frames": rng.normal(0, 1, (B, F, P, D)), "described": rng.normal(0, 1, (B, T, W))}
    values |= {"source": rng.normal(0, 1, (B, W)), "log_scale": np.array(-math.log(0.09))}
    values["target"] = values["source"] + rng.normal(0, 0.7, (B, W))
    for name in ("frames", "described"):  # one item, two captions
        values[name][2] = values[name][0]
    values |= {"weights": np.array([1, 0.3, 0.5, 0, 0.8, 0.4])}
    described = [0b11010000, 0b11111111, 0b11010000, 0b10000000, 0, 0b01110110]  # padded views; no description at all
    whole = {
        "is_described": np.unpackbits(np.array(described, np.uint8)[:, None], axis=1).astype(bool),
        "frame_count": np.array([3, 1, 3, 2, 1, 4]),
        "ids": np.array([7, 8, 7, 9, 10, 9]),
    }
    save_file({name: np.asarray(x, np.float32) for name, x in values.items()} | whole, path)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def unit(x, axis=-1):
    return x / np.sqrt((x**2).sum(axis, keepdims=True))


def scaled(x):
    return (x - x.min()) / (x.max() - x.min())


def divergence(teacher, student):
    p, q = softmax(teacher), softmax(student)
    return float((p * np.log(p / q)).sum())


class Item(NamedTuple):
    media_E: np.ndarray
    local_KE: np.ndarray
    slots_KD: np.ndarray
    caption_KE: np.ndarray
    vision_NE: np.ndarray


class Reference:
    """`released`: or corrected. `video`: on the first token of each frame, as its features."""

    def __init__(self, values, released, video):
        self.w, self.released = {name: np.asarray(x, np.float64) for name, x in values.items()}, released
        self.video = video
        self.ids, self.weights = values["ids"].tolist(), self.w["weights"]
        self.items = [self.item(i) for i in range(B)]
        self.source, self.target = (unit(self.linear(self.w[name], "text_head")) for name in ("source", "target"))
        self.scale = math.exp(self.w["log_scale"])

    def linear(self, x, name):
        return x @ self.w[f"{name}.weight"].T + self.w[f"{name}.bias"]

    def layer(self, x, memory, name):
        """x ← LayerNorm(x + W2·GELU(W1·MHA(x, m, m)))."""
        query = self.linear(x, f"{name}.query")
        key, value = self.linear(memory, f"{name}.key"), self.linear(memory, f"{name}.value")
        read = []
        for head in np.split(np.arange(D), SHAPE["num_heads"]):
            share = softmax(query[:, head] @ key[:, head].T / math.sqrt(len(head)))
            read.append(share @ value[:, head])
        hidden = self.linear(self.linear(np.concatenate(read, 1), f"{name}.out"), f"{name}.feed_forward.0")
        hidden = hidden * np.vectorize(lambda h: (1 + math.erf(h / math.sqrt(2))) / 2)(hidden)
        x = x + self.linear(hidden, f"{name}.feed_forward.3")
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        return x * self.w[f"{name}.norm.weight"] + self.w[f"{name}.norm.bias"]

    def stack(self, x, memory, name, count):
        for number in range(count):
            x = self.layer(x, memory, f"{name}.{number}")
        return x

    def item(self, i):
        count, axis = int(self.w["frame_count"][i]), 0 if self.released else 1
        tokens = self.w["frames"][i, 0] if count == 1 else self.w["frames"][i, :count, 0]
        compared = tokens  # by the caption–vision loss
        if self.video:
            compared = np.concatenate([self.w["frames"][i, :count, 0], np.zeros((F - count, D))])
            for number in range(READER_LAYERS):
                compared = self.layer(compared, compared[:count], f"media_encoder.layers.{number}")
            tokens = compared[:count]
        words = self.linear(self.w["described"][i][self.w["is_described"][i] > 0], "slots.project")
        memory = words if len(words) else self.w["slots.null_D"][None]  # ours: all released items are described
        slots = self.stack(self.w["slots.queries_KD"], memory, "slots.layers", SHAPE["slot_layers"])
        read = self.stack(tokens, slots, "interaction.tokens_read", SHAPE["interaction_layers"])
        slots_read = self.stack(slots, tokens, "interaction.slots_read", SHAPE["interaction_layers"])
        local = self.linear(slots_read, "slot_head")
        return Item(
            media_E=unit(self.linear(read[0] if count == 1 and not self.video else read.mean(0), "media_head")),
            local_KE=local if self.released else unit(local),
            slots_KD=slots,
            caption_KE=unit(self.linear(slots, "slot_caption_head"), axis),
            vision_NE=unit(self.linear(compared, "token_vision_head"), axis),
        )

    def same(self, i, j):
        return self.ids[i] == self.ids[j]

    def cross_entropy(self, logits, row, match, seen):
        """Minus the mean log-probability of a row's positives, among the columns that are there."""
        logs = {j: logits[row, j] for j in range(B) if seen[j]}
        positives = [x for j, x in logs.items() if match(row, j)]
        return math.log(sum(math.exp(x) for x in logs.values())) - sum(positives) / len(positives)

    def symmetric(self, logits, match, pairs):
        """`pairs`: the columns are target texts, and rows weigh what their pair does."""
        there, weights = (self.weights > 0, self.weights) if pairs else (np.ones(B, bool), np.ones(B))
        losses = [
            (self.cross_entropy(logits, i, match, there), self.cross_entropy(logits.T, i, match, np.ones(B, bool)))
            for i in range(B)
            if weights[i]
        ]
        return np.average(np.mean(losses, 1), weights=weights[weights > 0])

    def distillation(self, summary, local, student, config):
        """Texts are the rows and items the columns, but of `local`: [item,text]."""
        alpha, there = config.teacher_weight, self.weights > 0
        if self.released:
            teacher = alpha * scaled(summary) + (1 - alpha) * scaled(local)
            losses = [divergence(teacher[i], student[i]) for i in range(B)]
        else:
            teacher = (alpha * summary + (1 - alpha) * local.T) / config.teacher_temperature
            student = student / config.student_temperature
            losses = [
                (divergence(teacher[i], student[i]) + divergence(teacher[there, i], student[there, i])) / 2
                for i in range(B)
            ]
        return np.average(losses, weights=self.weights)

    def diversity(self):
        count, total = SHAPE["num_slots"], 0.0
        for item in self.items:
            slots = unit(item.slots_KD)
            cosines = [slots[a] @ slots[b] for a in range(count) for b in range(count) if a != b]
            total += sum(cosines) if self.released else sum(x**2 for x in cosines)
        return total / B / (count**2 if self.released else count * (count - 1))

    def caption_vision(self, config):
        rows = [[np.mean(a.caption_KE @ b.vision_NE.T) for b in self.items] for a in self.items]
        logits = np.array(rows) / config.caption_vision_temperature
        if self.released:
            return np.mean([self.cross_entropy(logits, i, self.same, np.ones(B, bool)) for i in range(B)])
        return self.symmetric(logits, self.same, pairs=False)

    def losses(self, config):
        media, source, target = np.stack([item.media_E for item in self.items]), self.source, self.target
        local_source, local_target = (
            np.array([[max(slot @ text for slot in item.local_KE) for text in texts] for item in self.items])
            for texts in (source, target)
        )
        match = (lambda i, j: i == j) if self.released else self.same
        raw = {
            "media_source": self.symmetric(self.scale * media @ source.T, self.same, pairs=False),
            "caption_vision": self.caption_vision(config),
            "media_target": self.symmetric(self.scale * media @ target.T, self.same, pairs=True),
            "distillation": self.distillation(source @ media.T, local_source, target @ media.T, config),
            "source_target": self.symmetric(self.scale * source @ target.T, self.same, pairs=True),
            "local_source": self.symmetric(self.scale * local_source, match, pairs=False),
            "local_target": self.symmetric(self.scale * local_target, match, pairs=True),
            "diversity": self.diversity(),
        }
        w_d, w_c = config.distillation_weight, config.local_weight
        factors = [1, config.caption_vision_weight, 1 - w_d, w_d, 1, w_c, w_c, config.diversity_weight]
        return raw | {"total": sum(a * b for a, b in zip(factors, raw.values(), strict=True))}


def computed(monkeypatch, case):
    """By `model`, the features and every term of the loss; and the reference."""
    released, at_start, config = CASES[case]
    values = load_file(FIXTURE)
    video = case == VIDEO
    leccr = make_model(monkeypatch, video, **AS_RELEASED_VIDEO if video else AS_RELEASED if released else {})
    if video:
        values = draw_weights(leccr, np.random.default_rng(21)) | values
    if at_start:
        values["slots.queries_KD"] = np.zeros_like(values["slots.queries_KD"])
    inputs = {name: torch.from_numpy(values[name]) for name in INPUTS}
    inputs |= {name: x.double() for name, x in inputs.items() if x.is_floating_point()}
    # a softmax does not see a bias of the keys, and this model has none
    own = {k: torch.from_numpy(x) for k, x in values.items() if k not in INPUTS and not k.endswith("key.bias")}
    leccr.load_state_dict(own | ({"slots.queries_KD": leccr.slots.queries_KD} if at_start else {}))
    frames = inputs["frames"][:, :, 0] if video else inputs["frames"].unsqueeze(3) * 255
    batch = Batch(
        Media(frames, torch.arange(F) < inputs["frame_count"][:, None]),
        *(Texts(inputs[name][:, None], torch.ones(B, 1, dtype=torch.bool)) for name in ("source", "target")),
        Texts(inputs["described"], inputs["is_described"]),
        inputs["ids"],
        inputs["weights"],
    )
    with torch.no_grad():
        features = leccr(batch)
        losses = objective(features, leccr.logit_scales, batch.item_ids, batch.weights, config)
    terms = {name: x.item() for name, x in (losses.raw | {"total": losses.total}).items()}
    return features, terms, Reference(values, released, video)


@pytest.mark.parametrize("case", CASES)
def test_features_and_every_term_agree(monkeypatch, case):
    features, got, reference = computed(monkeypatch, case)
    expected = {
        "media_BE": [item.media_E for item in reference.items],
        "slots_BKE": [item.local_KE for item in reference.items],
        "slot_mean_BD": [item.caption_KE.mean(0) for item in reference.items],
        "token_mean_BD": [item.vision_NE.mean(0) for item in reference.items],
        "source_BE": reference.source,
        "target_BE": reference.target,
    }
    assert got == pytest.approx(reference.losses(CASES[case][2]), rel=1e-7)
    for name, value in expected.items():
        np.testing.assert_allclose(getattr(features, name), value, rtol=1e-7, atol=1e-9, err_msg=name)


if __name__ == "__main__":
    make_fixture(FIXTURE)

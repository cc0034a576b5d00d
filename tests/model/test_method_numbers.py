"""The whole method once more in plain NumPy, from the equations, on weights and inputs that lie in tests/golden.

    python -m tests.model.test_method_numbers     draws them anew

B items · N visual tokens · T description tokens · K slots · D width · C text width · E shared width
"""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from torch import nn

from model.batch import Batch, Media, Texts
from model.modeling import LeccrModel
from model.objective import ObjectiveConfig, objective
from stages.settings import resolve

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "method.safetensors"
HEADS, SLOTS, D, C, E, WORDS, ITEMS, TOKENS = 2, 3, 8, 6, 5, 20, 5, 4
TOWER = {"kind": "tiny", "layers": 1, "heads": 2}
SHAPE = {"embed_dim": E, "num_slots": SLOTS, "slot_layers": 2, "interaction_layers": 2, "num_heads": HEADS}
WEIGHTS = {"caption_vision_weight": 0.3, "distillation_weight": 0.4, "local_weight": 0.2, "diversity_weight": 0.1}


class Eyes(nn.Module):
    """A vision tower that hands on what it is given: frames are the visual tokens, pooled by their first, the CLS."""

    def forward(self, media):
        pool_BN = torch.zeros_like(media.mask, dtype=media.frames.dtype)
        pool_BN[:, 0] = 1
        return media.frames, media.mask, pool_BN


class Words(nn.Module):
    """A text tower that looks words up; a text is summarised by its first."""

    def __init__(self, table):
        super().__init__()
        self.table = nn.Parameter(table)

    def forward(self, texts):
        states = self.table[texts.tokens]
        return states, states[:, 0]


def built(settings, golden):
    """The real model, with the golden weights and these towers."""
    shape = {**SHAPE, **settings.leccr_config(), "description_encoder": "shared"}
    model = LeccrModel.create(
        {**TOWER, "width": D, "image_size": 16, "patch_size": 8},
        {**TOWER, "width": C, "vocab_size": WORDS, "max_tokens": 8},
        **{**shape, **SHAPE},
    )
    model.media_encoder, model.text_encoder = Eyes(), Words(torch.from_numpy(golden["words"]))
    own = {name.removeprefix("model."): torch.from_numpy(x) for name, x in golden.items() if name.startswith("model.")}
    missing, unexpected = model.load_state_dict(own, strict=False)
    assert missing == ["text_encoder.table"] and not unexpected
    if settings.leccr_config().get("slot_init") == "zero":
        assert (
            LeccrModel.create(model.config.media_encoder, model.config.text_encoder, **shape).slots.queries_KD == 0
        ).all()
    return model.double().eval()


def draw():
    """Weights far from symmetric; two captions of one item; a pair without its translation; texts and tokens of several
    lengths; an item without description."""
    random = np.random.default_rng(7)
    model = LeccrModel.create(
        {**TOWER, "width": D, "image_size": 16, "patch_size": 8},
        {**TOWER, "width": C, "vocab_size": WORDS, "max_tokens": 8},
        **SHAPE,
        description_encoder="shared",
    )
    golden = {
        f"model.{name}": (0.6 * random.standard_normal(x.shape) + (x.dim() == 1 and "norm" in name)).astype("f4")
        for name, x in model.state_dict().items()
        if not name.startswith(("media_encoder", "text_encoder"))
    }
    golden["model.log_scale"] = np.asarray(2.0, "f4")
    golden["words"] = random.standard_normal((WORDS, C)).astype("f4")
    golden["frames"] = random.standard_normal((ITEMS, TOKENS, D)).astype("f4")
    lengths = np.array([4, 2, 3, 4, 1])
    golden["frames_mask"] = np.arange(TOKENS) < lengths[:, None]
    for name in ("source", "target"):
        golden[name] = random.integers(0, WORDS, (ITEMS, 3))
    golden["descriptions"] = random.integers(0, WORDS, (ITEMS, 2, 4))
    golden["descriptions_mask"] = np.arange(4) < random.integers(1, 5, (ITEMS, 2, 1))
    golden["descriptions_mask"][2] = False
    golden["ids"] = np.array([11, 12, 11, 13, 14])
    golden["weights"] = np.array([1.0, 0.5, 0.25, 0.0, 0.75], "f4")
    save_file({name: np.ascontiguousarray(x) for name, x in golden.items()}, GOLDEN)


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def unit(x, axis=-1):
    return x / np.sqrt((x * x).sum(axis, keepdims=True))


class Derived:
    """Features and losses of `method`, from the equations alone."""

    def __init__(self, golden, faithful):
        self.g = {name: x.astype("f8") if x.dtype.kind == "f" else x for name, x in golden.items()}
        self.faithful = faithful
        self.scale = math.exp(self.g["model.log_scale"].item())
        self.w = self.g["weights"]
        self.items = [self.item(b) for b in range(ITEMS)]
        self.s, self.t = (
            [unit(self.linear("text_head", self.g["words"][self.g[name][b, 0]])) for b in range(ITEMS)]
            for name in ("source", "target")
        )

    def linear(self, name, x):
        bias = self.g.get(f"model.{name}.bias", 0.0)
        return x @ self.g[f"model.{name}.weight"].T + bias

    def layer(self, name, x, m):
        q, k, v = (self.linear(f"{name}.{part}", y) for part, y in (("query", x), ("key", m), ("value", m)))
        d = D // HEADS
        read = np.zeros_like(x)
        for i in range(len(x)):
            for h in range(HEADS):
                at = slice(h * d, (h + 1) * d)
                a = softmax(np.array([q[i, at] @ k[j, at] for j in range(len(m))]) / math.sqrt(d))
                read[i, at] = sum(a[j] * v[j, at] for j in range(len(m)))
        hidden = self.linear(f"{name}.feed_forward.0", self.linear(f"{name}.out", read))
        gelu = np.vectorize(lambda y: 0.5 * y * (1 + math.erf(y / math.sqrt(2))))(hidden)
        y = x + self.linear(f"{name}.feed_forward.3", gelu)
        y = (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, keepdims=True) + 1e-5)
        return y * self.g[f"model.{name}.norm.weight"] + self.g[f"model.{name}.norm.bias"]

    def item(self, b):
        g = self.g
        z = g["frames"][b][g["frames_mask"][b]]
        read = g["words"][g["descriptions"][b][g["descriptions_mask"][b]]]
        memory = self.linear("slots.project", read) if len(read) else g["model.slots.null_D"][None]
        slots = g["model.slots.queries_KD"]
        for number in range(SHAPE["slot_layers"]):
            slots = self.layer(f"slots.layers.{number}", slots, memory)
        z_read, slots_read = z, slots
        for number in range(SHAPE["interaction_layers"]):
            z_read = self.layer(f"interaction.tokens_read.{number}", z_read, slots)
            slots_read = self.layer(f"interaction.slots_read.{number}", slots_read, z)
        local = self.linear("slot_head", slots_read)
        a, c = self.linear("slot_caption_head", slots), self.linear("token_vision_head", z)
        axis = 0 if self.faithful else -1
        return {
            "v": unit(self.linear("media_head", z_read[0])),
            "local": local if self.faithful else unit(local),
            "caption": unit(a, axis),
            "vision": unit(c, axis),
            "slots": unit(slots),
        }

    def matrix(self, similarity):
        return np.array([[similarity(a, b) for b in range(ITEMS)] for a in range(ITEMS)])

    def ce(self, logits, a, same, columns):
        p = dict(zip(columns, softmax(np.array([logits[b] for b in columns])), strict=True))
        positives = [b for b in columns if same(a, b)]
        return -sum(math.log(p[b]) for b in positives) / len(positives)

    def symmetric(self, to_texts, to_items, pairs, same=None):
        """`to_texts[a, b]`: a row's similarity to text b; `to_items` to item b."""
        ids = self.g["ids"]
        same = same or (lambda a, b: ids[a] == ids[b])
        translated = [b for b in range(ITEMS) if self.w[b] > 0]
        loss, total = 0.0, 0.0
        for a in translated if pairs else range(ITEMS):
            there = self.ce(to_texts[a], a, same, translated if pairs else list(range(ITEMS)))
            back = self.ce(to_items[a], a, same, list(range(ITEMS)))
            weight = self.w[a] if pairs else 1.0
            loss, total = loss + weight * (there + back) / 2, total + weight
        return loss / total

    def kl(self, teacher, student, columns):
        p, q = softmax(teacher[columns]), softmax(student[columns])
        return float((p * np.log(p / q)).sum())

    def terms(self, config):
        it, s, t = self.items, self.s, self.t
        vs, vt = (self.matrix(lambda a, b, x=x: it[a]["v"] @ x[b]) for x in (s, t))
        st = self.matrix(lambda a, b: s[a] @ t[b])
        ls, lt = (self.matrix(lambda a, b, x=x: max(slot @ x[b] for slot in it[a]["local"])) for x in (s, t))
        cv = self.matrix(lambda a, b: np.mean([c @ v for c in it[a]["caption"] for v in it[b]["vision"]]))
        own = (lambda a, b: a == b) if self.faithful else None
        k = self.scale
        cosines = [
            [x @ y for i, x in enumerate(one["slots"]) for j, y in enumerate(one["slots"]) if i != j] for one in it
        ]
        alpha = config.teacher_weight
        to_items = alpha * vs.T + (1 - alpha) * (ls if self.faithful else ls.T)
        every, translated = list(range(ITEMS)), [b for b in range(ITEMS) if self.w[b] > 0]
        kd = 0.0
        for a in translated:
            if self.faithful:
                low, high = to_items.min(), to_items.max()
                one = self.kl((to_items[a] - low) / (high - low), vt.T[a], every)
            else:
                to_texts = alpha * vs + (1 - alpha) * ls
                one = self.kl(to_items[a] / config.teacher_temperature, vt.T[a] / config.student_temperature, every)
                one += self.kl(to_texts[a] / config.teacher_temperature, vt[a] / config.student_temperature, translated)
                one /= 2
            kd += self.w[a] * one / self.w.sum()
        return {
            "media_source": self.symmetric(k * vs, k * vs.T, False),
            "media_target": self.symmetric(k * vt, k * vt.T, True),
            "source_target": self.symmetric(k * st, k * st.T, True),
            "caption_vision": self.symmetric(cv, cv.T, False),
            "local_source": self.symmetric(k * ls, k * ls.T, False, own),
            "local_target": self.symmetric(k * lt, k * lt.T, True, own),
            "diversity": np.mean([np.mean(c if self.faithful else np.square(c)) for c in cosines]),
            "distillation": kd,
        }


@pytest.mark.parametrize("method", ["faithful", "corrected"])
def test_every_term_is_what_the_equations_say(method):
    golden = load_file(GOLDEN)
    settings = resolve("base", [f"method={method}", *(f"{name}={value}" for name, value in WEIGHTS.items())])
    config = settings.objective_config()
    assert config == dataclasses.replace(
        ObjectiveConfig.faithful() if method == "faithful" else ObjectiveConfig(), **WEIGHTS
    )
    model = built(settings, golden)
    ones = torch.ones(ITEMS, 3, dtype=torch.bool)
    batch = Batch(
        Media(torch.from_numpy(golden["frames"]).double(), torch.from_numpy(golden["frames_mask"])),
        Texts(torch.from_numpy(golden["source"]), ones),
        Texts(torch.from_numpy(golden["target"]), ones),
        Texts(torch.from_numpy(golden["descriptions"]), torch.from_numpy(golden["descriptions_mask"])),
        torch.from_numpy(golden["ids"]),
        torch.from_numpy(golden["weights"]),
    )
    got = objective(model(batch), model.logit_scale, batch.item_ids, batch.weights, config)
    wanted = Derived(golden, method == "faithful").terms(config)
    assert {name: value.item() for name, value in got.raw.items()} == pytest.approx(wanted, rel=1e-5)
    d = config.distillation_weight
    weights = {"media_source": 1, "source_target": 1, "media_target": 1 - d, "distillation": d}
    weights |= {"caption_vision": 0.3, "local_source": 0.2, "local_target": 0.2, "diversity": 0.1}
    assert got.total.item() == pytest.approx(sum(weights[name] * value for name, value in wanted.items()), rel=1e-5)


if __name__ == "__main__":
    draw()

import math
from dataclasses import replace

import pytest
import torch

import model.objective
from model.batch import Features
from model.losses import distillation
from model.objective import objective
from model.settings import ObjectiveConfig
from tests.model.samples import make_features

IDS = torch.tensor([7, 8, 7, 9, 10, 9])
WEIGHTS = torch.tensor([1.0, 0.3, 0.5, 0.0, 0.8, 0.4], dtype=torch.float64)
SCALE = torch.tensor(9.0, dtype=torch.float64)
ALL_ON = ObjectiveConfig(
    caption_vision_weight=0.3,
    distillation_weight=0.4,
    local_weight=0.2,
    diversity_weight=0.7,
    teacher_weight=0.6,
    teacher_temperature=0.2,
    student_temperature=0.3,
    caption_vision_temperature=0.5,
)


def reference(features, ids, weights, config):
    """The objective once more, one sample after the other, with plain floats."""
    f = Features(*(x.detach() for x in features))
    count = len(ids)
    everyone, translated = range(count), [j for j in range(count) if weights[j] > 0]

    def dot(a, b):
        return float((a * b).sum())

    def best(i, texts, j):
        return max(dot(slot, texts[j]) for slot in f.slots_BKE[i])

    def log_softmax(similarity, i, columns, factor):
        values = {j: factor * similarity(i, j) for j in columns}
        total = math.log(sum(math.exp(x) for x in values.values()))
        return {j: x - total for j, x in values.items()}

    def cross_entropy(similarity, i, columns, factor):
        logs = log_softmax(similarity, i, columns, factor)
        positives = [j for j in columns if ids[j] == ids[i]]
        return -sum(logs[j] for j in positives) / len(positives)

    def symmetric(similarity, factor, texts, weights):
        loss = 0.0
        for i in everyone:
            if weights[i] > 0:
                there = cross_entropy(similarity, i, texts, factor)
                back = cross_entropy(lambda i, j: similarity(j, i), i, everyone, factor)
                loss += float(weights[i]) * (there + back) / 2
        return loss / max(float(sum(weights)), 1e-30)

    def divergence(teacher, student, i, columns):
        p = log_softmax(teacher, i, columns, 1 / config.teacher_temperature)
        q = log_softmax(student, i, columns, 1 / config.student_temperature)
        return sum(math.exp(p[j]) * (p[j] - q[j]) for j in columns)

    def teacher(i, j):  # item, text
        summary = dot(f.media_BE[i], f.source_BE[j])
        alpha = config.teacher_weight if len(f.slots_BKE[0]) else 1
        return alpha * summary + ((1 - alpha) * best(i, f.source_BE, j) if alpha < 1 else 0)

    def student(i, j):
        return dot(f.media_BE[i], f.target_BE[j])

    scale, ones = float(SCALE), [1.0] * count
    raw = {
        "media_source": symmetric(lambda i, j: dot(f.media_BE[i], f.source_BE[j]), scale, everyone, ones),
        "media_target": symmetric(student, scale, translated, weights),
        "source_target": symmetric(lambda i, j: dot(f.source_BE[i], f.target_BE[j]), scale, translated, weights),
    }
    both = sum(
        float(weights[i])
        * (
            divergence(teacher, student, i, translated)
            + divergence(lambda i, j: teacher(j, i), lambda i, j: student(j, i), i, everyone)
        )
        / 2
        for i in translated
    )
    raw["distillation"] = both / max(float(sum(weights)), 1e-30)
    if len(f.slots_BKE[0]):
        factor = 1 / config.caption_vision_temperature
        caption_vision = symmetric(lambda i, j: dot(f.slot_mean_BD[i], f.token_mean_BD[j]), factor, everyone, ones)
        slots = range(f.slots_BKE.shape[1])
        pairs = [(a, b) for a in slots for b in slots if a != b]
        raw |= {
            "caption_vision": caption_vision,
            "local_source": symmetric(lambda i, j: best(i, f.source_BE, j), scale, everyone, ones),
            "local_target": symmetric(lambda i, j: best(i, f.target_BE, j), scale, translated, weights),
            "diversity": sum(float(c[a, b]) ** 2 for c in f.slot_cosines_BKK for a, b in pairs) / len(pairs) / count,
        }
    return raw


def total_of(raw, config):
    """Equation 9."""
    get = raw.get
    return (
        raw["media_source"]
        + config.caption_vision_weight * get("caption_vision", 0)
        + (1 - config.distillation_weight) * raw["media_target"]
        + config.distillation_weight * raw["distillation"]
        + raw["source_target"]
        + config.local_weight * (get("local_source", 0) + get("local_target", 0))
        + config.diversity_weight * get("diversity", 0)
    )


@pytest.mark.parametrize("slots", [3, 0])
@pytest.mark.parametrize("weights", [WEIGHTS, torch.ones(6).double(), torch.zeros(6).double()])
def test_every_term_against_plain_loops(slots, weights):
    features = make_features(6, slots=slots)
    losses = objective(features, SCALE, IDS, weights, ALL_ON)
    expected = reference(features, IDS.tolist(), weights, ALL_ON)
    assert {name: value.item() for name, value in losses.raw.items()} == pytest.approx(expected)
    assert losses.total.item() == pytest.approx(total_of(expected, ALL_ON))
    assert losses.total.item() == pytest.approx(sum(x.item() for x in losses.weighted.values()))
    assert not any(x.requires_grad for terms in losses[1:] for x in terms.values())


def test_without_a_single_target_text_it_is_finite_and_asks_nothing_of_them():
    features = make_features(6, dtype=torch.float32)
    scale = SCALE.float().requires_grad_()
    losses = objective(features, scale, IDS, torch.zeros(6), ALL_ON)
    losses.total.backward()
    assert losses.total.isfinite() and (features.target_BE.grad == 0).all()
    assert {name for name, x in losses.raw.items() if x == 0} == {
        "media_target",
        "source_target",
        "local_target",
        "distillation",
    }
    assert all(x.grad is not None and x.grad.isfinite().all() for x in features)


def test_a_term_of_weight_zero_leaves_no_hole_in_the_graph():
    features = make_features(6)
    scale = SCALE.clone().requires_grad_()
    config = ObjectiveConfig(
        caption_vision_weight=0, distillation_weight=1, local_weight=0, diversity_weight=0, teacher_weight=1
    )
    objective(features, scale, IDS, WEIGHTS, config).total.backward()
    assert all(x.grad is not None for x in (*features, scale))


@pytest.mark.parametrize("config", [ALL_ON, ObjectiveConfig.faithful()])
def test_blocks_of_rows_change_nothing(monkeypatch, device, config):
    def run():
        features = Features(*(x.detach().to(device).requires_grad_() for x in make_features(6)))
        scale = SCALE.to(device).requires_grad_()
        losses = objective(features, scale, IDS.to(device), WEIGHTS.to(device), config)
        return losses.total.detach(), losses.raw, torch.autograd.grad(losses.total, [*features, scale])

    whole, blocks = run(), None
    seen = []
    original = model.objective._global_terms
    monkeypatch.setattr(
        model.objective, "_global_terms", lambda rows, *more: seen.append(len(rows.ids_B)) or original(rows, *more)
    )
    for name in ("BLOCK", "BLOCK_GPU"):
        monkeypatch.setattr(model.objective, name, 6 * 4)
    blocks = run()
    torch.testing.assert_close(blocks, whole)
    assert seen == [4, 2]  # not once more in the backward


def test_large_logits_are_computed_in_fp32_under_autocast():
    features = make_features(6, dtype=torch.float32)
    expected = objective(features, torch.tensor(100.0), IDS, WEIGHTS.float(), ALL_ON).total
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(objective(features, torch.tensor(100.0), IDS, WEIGHTS.float(), ALL_ON).total, expected)
    low = Features(*(x.bfloat16() for x in features))
    assert objective(low, torch.tensor(100.0), IDS, WEIGHTS, ALL_ON).total.dtype == torch.float32


def test_the_scale_that_pleases_distillation_is_not_the_learned_one():
    features, scale = make_features(6), SCALE.clone().requires_grad_()
    same = features._replace(target_BE=features.source_BE)
    config = ObjectiveConfig(teacher_weight=1.0)
    assert objective(same, scale, IDS, torch.ones(6), config).raw["distillation"].item() == pytest.approx(0)
    values = [objective(features, factor * SCALE, IDS, WEIGHTS, ALL_ON).raw["distillation"] for factor in (1, 2)]
    assert values[0] == values[1]


def test_faithful_local_matching_has_own_captions_as_the_only_positives():
    features = make_features(6, unit_slots=False)
    everyone = torch.ones(6, dtype=torch.float64)
    faithful, none_twice = ObjectiveConfig.faithful(), torch.arange(6)
    twice = objective(features, SCALE, IDS, everyone, faithful).raw
    once = objective(features, SCALE, none_twice, everyone, faithful).raw
    for name in ("local_source", "local_target"):
        assert twice[name] == once[name]  # another caption of the item is a negative like any other
    assert twice["media_source"] != once["media_source"]
    corrected = objective(features, SCALE, IDS, everyone, ObjectiveConfig()).raw
    assert (
        corrected["local_source"]
        != objective(features, SCALE, none_twice, everyone, ObjectiveConfig()).raw["local_source"]
    )


def test_faithful_teacher_adds_matrices_of_two_orientations_and_is_nearly_uniform():
    """Similarities as a trained model has them: .3 ± .05 for a match, 0 ± .05 otherwise; 128 samples."""
    count, width = 128, 256
    features = make_features(count, slots=4, width=width, seed=3)
    with torch.no_grad():
        source_BE = torch.nn.functional.normalize(features.media_BE * 0.31 + features.source_BE * 0.95, dim=-1)
    features = features._replace(source_BE=source_BE)
    summary_BB = source_BE @ features.media_BE.mT
    local_BB = torch.einsum("ike,je->ijk", features.slots_BKE, source_BE).amax(-1)
    ids, weights = torch.arange(count), torch.ones(count, dtype=torch.float64)

    def kd(**changes):
        return objective(features, SCALE, ids, weights, replace(ObjectiveConfig.faithful(), **changes)).raw[
            "distillation"
        ]

    def scaled(scores_BB):
        return (scores_BB - scores_BB.min()) / (scores_BB.max() - scores_BB.min())

    scaled_BB = 0.8 * scaled(summary_BB) + 0.2 * scaled(local_BB)  # [text,item] + [item,text]
    torch.testing.assert_close(kd(), distillation(scaled_BB, features.target_BE @ features.media_BE.mT).mean())
    assert abs(kd() - kd(teacher_orientation="same")) > 1e-6

    def entropy(teacher_BB):
        p_BB = teacher_BB.softmax(1)
        return (-(p_BB * p_BB.log()).sum(1).mean() / math.log(count)).item()

    assert entropy(scaled_BB) > 0.99
    assert entropy(summary_BB / ObjectiveConfig().teacher_temperature) < 0.92


def test_faithful_on_one_rank_differs_from_corrected_only_where_a_quirk_is():
    features, weights = make_features(6), torch.ones(6, dtype=torch.float64)
    raw = [
        objective(features, SCALE, IDS, weights, config).raw
        for config in (ObjectiveConfig.faithful(), ObjectiveConfig())
    ]
    differ = {name for name in raw[0] if not torch.isclose(raw[0][name], raw[1][name])}
    assert differ == {"caption_vision", "local_source", "local_target", "distillation", "diversity"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("teacher", "max"),
        ("gather", "none"),
        ("local_weight", -1),
        ("diversity_weight", math.nan),
        ("distillation_weight", 1.5),
        ("student_temperature", 0),
    ],
)
def test_a_value_out_of_its_range_is_refused(name, value):
    with pytest.raises(ValueError, match=f"{name}={value}: expected"):
        ObjectiveConfig(**{name: value})


def test_the_presets_have_the_published_weights():
    for config in (ObjectiveConfig(), ObjectiveConfig.faithful()):
        weights = config.caption_vision_weight, config.distillation_weight, config.local_weight, config.diversity_weight
        assert (*weights, config.teacher_weight) == (0.01, 0.5, 0.01, 0.01, 0.8)

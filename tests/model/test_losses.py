import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.losses import contrastive, distillation, diversity, local_similarity

EYE = torch.eye(3, dtype=torch.bool)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_worked_example():
    logits_RC = torch.tensor([[2.0, 0.0, 1.0], [0.0, 3.0, 0.0]])
    match_RC = torch.tensor([[True, False, True], [False, True, False]])
    first = math.log(math.e**2 + 1 + math.e) - (2 + 1) / 2
    second = math.log(math.e**3 + 2) - 3
    torch.testing.assert_close(contrastive(logits_RC, match_RC), torch.tensor([first, second]))


@given(st.integers(1, 5), st.lists(st.booleans(), min_size=1, max_size=6), st.integers(0, 10**6))
def test_an_unseen_column_is_as_if_it_were_not_there(rows, seen, seed):
    logits_RC, seen_C = random(rows, len(seen), seed=seed), torch.tensor(seen)
    match_RC = random(rows, len(seen), seed=seed + 1) > 0
    losses_R = contrastive(logits_RC.requires_grad_(), match_RC, seen_C)
    torch.testing.assert_close(losses_R, contrastive(logits_RC[:, seen_C], match_RC[:, seen_C]))
    losses_R.sum().backward()
    assert logits_RC.grad.isfinite().all() and (logits_RC.grad[:, ~seen_C] == 0).all()
    assert (losses_R[~match_RC[:, seen_C].any(1)] == 0).all()


def test_fp32_and_an_empty_row_stay_finite():
    logits_RC = random(3, 3).float().requires_grad_()
    for losses_R in (
        contrastive(logits_RC, EYE, torch.zeros(3, dtype=torch.bool)),
        distillation(logits_RC * 2, logits_RC, torch.zeros(3, dtype=torch.bool)),
    ):
        (gradient,) = torch.autograd.grad(losses_R.sum(), logits_RC)
        assert losses_R.isfinite().all() and (gradient == 0).all()


def test_distillation_is_the_divergence_from_the_teacher():
    teacher_RC, student_RC = random(3, 4).requires_grad_(), random(3, 4, seed=1).requires_grad_()
    p, q = teacher_RC.softmax(1), student_RC.softmax(1)
    torch.testing.assert_close(distillation(teacher_RC, student_RC), (p * (p / q).log()).sum(1))
    seen_C = torch.tensor([True, False, True, True])
    torch.testing.assert_close(
        distillation(teacher_RC, student_RC, seen_C), distillation(teacher_RC[:, seen_C], student_RC[:, seen_C])
    )
    distillation(teacher_RC, student_RC).sum().backward()
    assert teacher_RC.grad is None and student_RC.grad.abs().sum() > 0
    torch.testing.assert_close(student_RC.grad, (q - p).detach())
    torch.testing.assert_close(distillation(student_RC, student_RC), torch.zeros(3, dtype=torch.float64))


def test_squared_diversity_is_least_for_orthogonal_slots_and_signed_for_opposite_ones():
    def cosines(angle):
        slots_KD = torch.tensor([[1.0, 0.0], [math.cos(angle), math.sin(angle)]])
        return (slots_KD @ slots_KD.mT)[None]

    right, opposite, alike = cosines(math.pi / 2), cosines(math.pi), cosines(0)
    assert diversity(right).item() < 1e-6 < diversity(opposite).item() == pytest.approx(1)
    of_all_pairs = diversity(opposite, "signed").item(), diversity(alike, "signed").item()  # 2 of K² = 4, as released
    assert of_all_pairs == (pytest.approx(-0.5), 0.5)
    assert diversity(cosines(math.pi / 3)).item() == pytest.approx(0.25)  # cos² 60°
    assert diversity(torch.ones(2, 1, 1)).tolist() == [0, 0]


def test_local_similarity_is_that_of_the_best_slot():
    slots_RKE = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[-1.0, 0.0], [0.6, 0.8]]])
    texts_CE = torch.tensor([[1.0, 0.0], [0.0, -1.0], [0.6, 0.8]])
    torch.testing.assert_close(local_similarity(slots_RKE, texts_CE), torch.tensor([[1.0, 0.0, 0.8], [0.6, 0.0, 1.0]]))

import torch

from model.matching import global_similarity, local_similarity, score
from tests.model.samples import make_features


def test_local_similarity_is_that_of_the_best_slot():
    slots_RKE = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[-1.0, 0.0], [0.6, 0.8]]])
    texts_CE = torch.tensor([[1.0, 0.0], [0.0, -1.0], [0.6, 0.8]])
    torch.testing.assert_close(local_similarity(slots_RKE, texts_CE), torch.tensor([[1.0, 0.0, 0.8], [0.6, 0.0, 1.0]]))


def test_the_gradient_goes_to_the_best_slot_alone_and_is_shared_by_equals():
    slots_RKE = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]]).requires_grad_()
    local_similarity(slots_RKE, torch.tensor([[1.0, 0.0]])).sum().backward()
    assert slots_RKE.grad.tolist() == [[[0.5, 0], [0, 0], [0.5, 0]]]


def test_score_mixes_the_two_and_does_without_slots():
    features = make_features(4)
    media_BE, slots_BKE, texts_BE = features.media_BE, features.slots_BKE, features.source_BE
    summary_BB, best_BB = global_similarity(media_BE, texts_BE), local_similarity(slots_BKE, texts_BE)
    torch.testing.assert_close(score(media_BE, slots_BKE, texts_BE, 0.75), 0.75 * summary_BB + 0.25 * best_BB)
    torch.testing.assert_close(score(media_BE, slots_BKE[:, :0], texts_BE, 0.75), summary_BB)

"""Validation: the sums by hand, the best global weight, chance as random orders have it."""

import pytest
import torch

from stages.scoring.embed import Embedded
from stages.training.validation import selection_label, validation_line, validation_summary


def unit(*rows):
    return torch.nn.functional.normalize(torch.tensor(rows, dtype=torch.float32), dim=-1)


def embedded(**languages):
    """Three items on the axes; slots say that item 0 is item 1 and the other way round."""
    return Embedded(torch.tensor([10, 20, 30]), torch.eye(3), torch.eye(3)[[1, 0, 2]].unsqueeze(1), languages)


def test_the_global_weight_that_is_best_is_found_and_level_ones_go_to_the_larger():
    right = embedded(de=(torch.eye(3), torch.tensor([10, 20, 30])))
    line = validation_line(right, (0.0, 0.4, 0.8, 1.0), "val", 7)
    assert line["global_weight"] == 1.0 and line["sum_r"] == 600.0
    swapped = embedded(de=(torch.eye(3)[[1, 0, 2]], torch.tensor([10, 20, 30])))
    line = validation_line(swapped, (0.0, 0.4, 0.8, 1.0), "val", 7)
    assert line["global_weight"] == 0.4 and line["sum_r"] == 600.0
    assert (line["kind"], line["step"], line["split"], line["items"]) == ("validation", 7, "val", 3)


def test_languages_count_alike_and_each_has_the_gallery_it_has_texts_for():
    texts = {
        "de": (torch.eye(3), torch.tensor([10, 20, 30])),
        "fr": (unit([0, 0, 1], [0, 0, 1]), torch.tensor([10, 20])),  # of two items, both said to be like the third
    }
    line = validation_line(embedded(**texts), (1.0,), "val", 1)
    assert line["recalls"]["de"]["sum_r"] == 600.0
    fr = line["recalls"]["fr"]  # among two items, level with the wrong one: second, and so are the texts
    assert fr["text_to_media"] == {"r1": 0.0, "r5": 100.0, "r10": 100.0} == fr["media_to_text"]
    assert line["sum_r"] == (600 + 400) / 2
    assert line["chance"] == pytest.approx((100 * (2 * 1 / 3 + 4) + 100 * (2 * 1 / 2 + 4)) / 2)


def test_another_split_than_val_is_said_loudly():
    assert selection_label("val") is None and selection_label("val", "val")
    assert "selected on test" in selection_label("test") and "not" in selection_label("train")
    line = validation_line(embedded(de=(torch.eye(3), torch.tensor([10, 20, 30]))), (1.0,), "test", 1200)
    assert validation_summary(line, True).startswith(
        "step 1,200: SumR 600.0 on test of 3 items (chance 466.7; de 600.0"
    )
    assert validation_summary(line, True).endswith("best so far") and "best" not in validation_summary(line, False)

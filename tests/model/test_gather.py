"""Without a process group; with one: tests/distributed."""

import pytest
import torch

from model.gather import gather_constant, gather_rows, mean_over_ranks


def test_alone_everything_is_itself():
    rows = torch.ones(3, 2, requires_grad=True)
    assert gather_rows(rows) is rows and gather_rows(rows, "slice") is rows
    for value in (gather_constant(rows), mean_over_ranks(rows)):
        assert torch.equal(value, rows) and not value.requires_grad


def test_an_unknown_scheme_is_refused():
    with pytest.raises(ValueError, match="autograd or slice"):
        gather_rows(torch.ones(1), scheme="all")

"""The order of samples: a permutation an epoch, shared by ranks without overlap, a function of its arguments alone."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import UsageError
from stages.data.batches import check_batch_size, step_samples
from tests.conftest import ROOT

counts = st.integers(1, 300)


@given(counts, st.integers(1, 40), st.integers(0, 2**32), st.integers(0, 500))
def test_an_epoch_takes_no_sample_twice_and_leaves_less_than_a_batch_out(samples, size, seed, epoch):
    if size > samples:
        return
    taken = [step_samples(samples, size, seed=seed, epoch=epoch, step=step) for step in range(samples // size)]
    assert all(len(batch) == size for batch in taken)
    flat = np.concatenate(taken).tolist()
    assert len(set(flat)) == len(flat) and set(flat) <= set(range(samples))
    assert samples - len(flat) < size


@given(st.integers(1, 8), st.integers(1, 12), st.integers(0, 200), st.integers(0, 99), st.integers(0, 9))
def test_ranks_one_after_the_other_are_the_batch_of_a_single_one(world, share, more, seed, epoch):
    samples, size = world * share + more, world * share
    for step in range(samples // size):
        where = {"seed": seed, "epoch": epoch, "step": step}
        parts = [step_samples(samples, size, rank=rank, world=world, **where) for rank in range(world)]
        assert {len(part) for part in parts} == {share}
        assert np.concatenate(parts).tolist() == step_samples(samples, size, **where).tolist()


def test_epochs_and_seeds_have_orders_of_their_own_and_leave_out_others():
    def epoch(number, seed=0):
        return np.concatenate(
            [step_samples(103, 10, seed=seed, epoch=number, step=step) for step in range(10)]
        ).tolist()

    orders = [epoch(number, seed) for number in range(5) for seed in range(3)]
    assert len({tuple(order) for order in orders}) == 15
    left_out = {frozenset(set(range(103)) - set(order)) for order in orders}
    assert len(left_out) == 15 and all(len(left) == 3 for left in left_out)


@settings(max_examples=5)
@given(st.integers(2, 12))
def test_every_sample_comes_equally_often_at_every_place(samples):
    epochs = 400
    places = np.zeros((samples, samples))
    for epoch in range(epochs):
        places[np.arange(samples), step_samples(samples, samples, seed=7, epoch=epoch, step=0)] += 1
    expected = epochs / samples
    assert ((places - expected) ** 2 / expected).sum() < samples**2 + 6 * samples * 2**0.5


def test_the_order_is_pinned_and_is_the_same_in_a_process_of_its_own():
    wanted = [[0, 5, 1, 6], [5, 13, 7, 4]]
    assert [
        step_samples(7, 4, seed=0, epoch=0, step=0).tolist(),
        step_samples(20, 4, seed=3, epoch=2, step=1).tolist(),
    ] == wanted
    code = "from stages.data.batches import step_samples; print(step_samples(20, 4, seed=3, epoch=2, step=1).tolist())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == str(wanted[1])


@pytest.mark.parametrize(("size", "world", "message"), [(1001, 1, "only 1,000 samples"), (10, 4, "multiple of 4")])
def test_a_batch_that_cannot_be_filled_or_shared_is_refused(size, world, message):
    check_batch_size(1000, 1000, 1)
    with pytest.raises(UsageError, match=f"batch_size={size}.*{message}"):
        check_batch_size(1000, size, world)

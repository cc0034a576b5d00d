"""Rows encoded by one process and by several: the same vectors, each once, in the order of the data."""

import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import torch

from stages.scoring.embed import encode_rows


def accelerators(world):
    """Accelerators of `world` ranks, each to be used in a thread of its own."""
    rows_of, barrier = [None] * world, threading.Barrier(world, timeout=60)

    def accelerator(rank):
        def gather(rows):
            rows_of[rank] = rows
            barrier.wait()
            gathered = torch.cat(rows_of)
            barrier.wait()
            return gathered

        return SimpleNamespace(
            process_index=rank, num_processes=world, is_main_process=rank == 0, device="cpu", gather=gather
        )

    return [accelerator(rank) for rank in range(world)]


@pytest.mark.parametrize("world, rows", [(1, 11), (2, 11), (3, 10), (4, 2)])
def test_every_rank_has_all_vectors_once_in_the_order_of_the_data(world, rows):
    ids = torch.tensor([(number * 7) % 101 - 50 for number in range(rows)])
    sizes = []

    def encode(batch):
        sizes.append(len(batch))
        return torch.tensor(batch, dtype=torch.bfloat16)[:, None], torch.tensor(batch) * 2

    def share(accelerator):
        return encode_rows(accelerator, 4, "rows", ids, range(rows)[::-1], list, encode)

    with ThreadPoolExecutor(world) as pool:
        for first, second in pool.map(share, accelerators(world)):
            assert first.dtype == torch.float32 and first[:, 0].tolist() == list(range(rows))
            assert second.tolist() == list(range(0, 2 * rows, 2))
    assert max(sizes) <= 4 and sum(sizes) == world * -(-rows // world)

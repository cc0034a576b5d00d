"""Which samples a step takes: a pure function of (seed, epoch, step, rank), so that a run resumes where it was.

An epoch is a permutation of all samples, a step takes the next global batch of it, a rank its slice of that. What is
left of an epoch and fills no batch is left out, other samples each epoch; every rank has the same number of steps.
"""

import functools

import numpy as np

from pipeline.errors import UsageError


def steps_per_epoch(samples: int, batch_size: int) -> int:
    """Raises UsageError where an epoch has not one whole batch."""
    if batch_size > samples:
        raise UsageError(
            f"batch_size: got {batch_size:,}, more than the {samples:,} samples (captions of items) there are: give a "
            "smaller batch_size, or more data"
        )
    return samples // batch_size


def indices(
    samples: int, batch_size: int, *, seed: int, epoch: int, step: int, rank: int = 0, world: int = 1
) -> np.ndarray:
    """Samples of a rank in step `step` (from 0) of an epoch, [batch_size / world] uint32. `batch_size` is global.

    Ranks one after the other have the batch that one rank has alone.

    >>> [indices(7, 4, seed=0, epoch=0, step=0, rank=rank, world=2).tolist() for rank in (0, 1)]
    [[0, 5], [1, 6]]
    >>> indices(7, 4, seed=0, epoch=0, step=0).tolist()
    [0, 5, 1, 6]
    """
    size, rest = divmod(batch_size, world)
    if rest:
        raise UsageError(
            f"batch_size: got {batch_size:,}, which {world:,} processes cannot share evenly: give a multiple of "
            f"{world:,}"
        )
    start = step * batch_size + rank * size
    return _permutation(samples, seed, epoch)[start : start + size]


@functools.lru_cache(maxsize=2)
def _permutation(samples: int, seed: int, epoch: int) -> np.ndarray:
    """4 bytes a sample."""
    return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(np.arange(samples, dtype=np.uint32))

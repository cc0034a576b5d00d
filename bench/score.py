"""Ranks of a whole split, both ways: time and memory beside what they could cost at most and at least.

    python bench/score.py                       5,000 items, 25,000 captions, width 256, random vectors
    python bench/score.py --kind trained        vectors of a model that has learned: right ones stand out
    python bench/score.py --kind collapsed      vectors of a model that gives everything the same score

Beside the loop that everybody writes first (a query's scores, their argsort, the place of the right one), and beside
the matrix product alone, which no ranking by all scores can be faster than: as torch does it on its threads, and cut up
among threads as we do it. Every contender is a process of its own; they take turns, so that a noisy neighbour disturbs
all of them alike.
"""

import argparse
import concurrent.futures
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.common import Measured, machine, measured, spread

KINDS = ("random", "trained", "collapsed")
TILE = (1024, 1024)
Ranks = list[list[int]] | None
RUNS = 3  # timed in a process, after one that is not


def vectors(options: argparse.Namespace) -> tuple[Any, Any, Any]:
    """Texts [M,E], the row of each text's item [M], and media [N,E], all of unit length."""
    import torch
    from torch.nn.functional import normalize

    generator = torch.Generator().manual_seed(0)
    media = normalize(torch.randn(options.items, options.width, generator=generator), dim=1)
    texts = normalize(torch.randn(options.texts, options.width, generator=generator), dim=1)
    own = torch.arange(options.texts) % options.items
    if options.kind == "trained":
        texts = normalize(texts.add_(media[own], alpha=0.22), dim=1)
    if options.kind == "collapsed":
        texts, media = (texts[:1].expand(len(rows), -1).contiguous() for rows in (texts, media))
    return texts, own, media


def ours(options: argparse.Namespace) -> Callable[[], object]:
    import torch

    from stages.scoring.ranking import ranked

    texts, own, media = vectors(options)
    ids = torch.arange(options.items)
    return lambda: [side.tolist() for side in ranked(texts, own, media, ids)[0][:2]]


def product(options: argparse.Namespace) -> Callable[[], object]:
    """Every score once, tile by tile into the same memory, each tile on all of torch's threads."""
    texts, _, media = vectors(options)
    return lambda: multiply(texts, media)


def strips(options: argparse.Namespace) -> Callable[[], object]:
    """The same, a strip of texts on each thread."""
    import torch

    texts, _, media = vectors(options)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)

    def run() -> None:
        with concurrent.futures.ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            list(pool.map(lambda rows: multiply(rows, media), texts.split(TILE[0])))

    return run


def multiply(texts: Any, media: Any) -> None:
    import torch

    memory = torch.empty(TILE[0] * TILE[1])
    for rows in texts.split(TILE[0]):
        for columns in media.split(TILE[1]):
            torch.mm(rows, columns.T, out=memory[: len(rows) * len(columns)].view(len(rows), len(columns)))


def loop(options: argparse.Namespace) -> Callable[[], object]:
    """A query after the other, in both directions."""
    import numpy as np

    texts, own, media = (part.numpy() for part in vectors(options))
    texts_of = [np.flatnonzero(own == item) for item in range(options.items)]

    def there() -> Iterator[int]:
        for text, item in zip(texts, own, strict=True):
            yield 1 + int(np.flatnonzero(np.argsort(-(media @ text)) == item)[0])

    def back() -> Iterator[int]:
        for item, mine in zip(media, texts_of, strict=True):
            places = np.flatnonzero(np.isin(np.argsort(-(texts @ item)), mine))
            yield 1 + int(places[0])

    return lambda: [list(there()), list(back())]


CONTENDERS = {"ours": ours, "product": product, "strips": strips, "loop": loop}


def contend(options: argparse.Namespace) -> None:
    """One contender, in this process: its seconds and its ranks, as a line of JSON."""
    run = CONTENDERS[options.contender](options)
    timed = []
    result: object = None
    for number in range(1 if options.contender == "loop" else 1 + RUNS):
        began = time.perf_counter()
        result = run()
        if number or options.contender == "loop":
            timed.append(time.perf_counter() - began)
    print(json.dumps({"seconds": statistics.median(timed), "ranks": result}))


def started(contender: str, options: argparse.Namespace) -> tuple[float, Ranks, Measured]:
    given = [f"--{name}={getattr(options, name)}" for name in ("items", "texts", "width", "kind")]
    process = measured([sys.executable, __file__, *given, f"--contender={contender}"])
    result = json.loads(process.output.strip().splitlines()[-1])
    return result["seconds"], result["ranks"], process


def compare(options: argparse.Namespace) -> None:
    print(f"{options.items:,} items × {options.texts:,} texts × {options.width}, {options.kind} vectors; {machine()}")
    found: dict[str, list[tuple[float, Ranks, Measured]]] = {name: [] for name in CONTENDERS}
    for number in range(options.rounds):
        for name, runs in found.items():
            if name != "loop" or number == 0:  # once: it takes a hundred times as long
                runs.append(started(name, options))
    seconds = {name: statistics.median(run[0] for run in runs) for name, runs in found.items()}
    titles = {
        "ours": "ranks, both directions",
        "product": "the product alone, on torch's threads",
        "strips": "the product alone, a strip a thread",
        "loop": "a query at a time, with argsort",
    }
    print(f"{'':<40}{'seconds':>26}{'peak memory, MiB':>26}")
    for name, runs in found.items():
        times, peaks = [run[0] for run in runs], [run[2].peak_mib for run in runs]
        print(f"{titles[name]:<40}{spread(times):>26}{spread(peaks, 0):>26}")
    limit = min(seconds["product"], seconds["strips"])
    peak = max(run[2].peak_mib for run in found["ours"])
    print(f"\nfaster than the loop: {seconds['loop'] / seconds['ours']:.1f} × (wanted: 6 or more)")
    print(f"time over the product alone, the faster of the two: {seconds['ours'] / limit:.2f} × (wanted: 1.6 or less)")
    fastest = {name: min(run[0] for run in runs) for name, runs in found.items()}
    least = min(fastest["product"], fastest["strips"])
    print(f"  by the fastest round of each, least disturbed by neighbours: {fastest['ours'] / least:.2f} ×")
    print(f"peak memory, Python and torch included: {peak:.0f} MiB (wanted: under 500 MB, 477 MiB)")
    print(f"ranks: {agreement(found['ours'][0][1], found['loop'][0][1])}")


def agreement(ours: Ranks, loop: Ranks) -> str:
    pairs = [pair for sides in zip(ours or [], loop or [], strict=True) for pair in zip(*sides, strict=True)]
    apart = [mine - other for mine, other in pairs if mine != other]
    if not apart:
        return f"all {len(pairs):,} are the loop's"
    return (
        f"{len(pairs) - len(apart):,} of {len(pairs):,} are the loop's, the others {min(apart):+,} to {max(apart):+,}: "
        "scores nearer than a millionth count against us, and an argsort orders them at will"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=5_000, help="in the gallery (5000)")
    parser.add_argument("--texts", type=int, default=25_000, help="spread evenly over the items (25000)")
    parser.add_argument("--width", type=int, default=256, help="of the vectors (256)")
    parser.add_argument("--kind", choices=KINDS, default="random", help="of vectors (random)")
    parser.add_argument("--rounds", type=int, default=5, help="in which contenders take turns (5)")
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    contend(options) if options.contender else compare(options)


if __name__ == "__main__":
    main()

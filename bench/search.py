"""The vector index against bare FAISS with the same index, and against brute force in NumPy, in one run.

    python bench/search.py                        1,000,000 rows of 256 values, each an item of its own
    python bench/search.py --rows 100000 --dtype float32
    python bench/search.py --rows-each 4          four rows an item, as a model with slots has them
    python bench/search.py --quick                20,000 rows, to see that all of it runs

Vectors lie in clusters of clusters, as an encoder leaves them; queries lie where rows lie, with as much noise again.
Builders are processes of their own, whose memory is as the system accounts for it. What searches takes turns, so that a
noisy neighbour disturbs all alike. Recall is of the ten best items, by brute force on the vectors before they were
stored. Bare FAISS answers with rows, and is asked for ten rows; its index has the same lists, the same
training and the same effort, which is the one that our writer measured and wrote down.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import faiss
import numpy as np
import pyarrow as pa

from bench.common import machine, measured, spread
from pipeline.corpus.schema import SCHEMAS, schema_of
from pipeline.corpus.table import shard_name, write_manifest, write_shard
from stages.retrieval import vectors as item_vectors
from stages.retrieval.corpus_items import CorpusItems
from stages.retrieval.encoders import PartRows, Space
from stages.retrieval.index_reader import Generation
from stages.retrieval.index_writer import index_writer
from stages.retrieval.vectors import recall

WIDTH, K, BLOCK = 256, 10, 10_000
MEMBERS = 200  # rows of a cluster
BATCH = 64  # queries asked at once
Answer = Callable[[np.ndarray], np.ndarray]


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def noise(generator: np.random.Generator, rows: int) -> np.ndarray:
    return unit(generator.standard_normal((rows, WIDTH), np.float32))


def centres(rows: int) -> np.ndarray:
    generator = np.random.default_rng(0)
    count = max(2, rows // MEMBERS)
    topics = noise(generator, max(2, round(count**0.5)))
    return unit(topics[generator.integers(0, len(topics), count)] + noise(generator, count))


def blocks(rows: int) -> Iterator[np.ndarray]:
    """All rows, the same in every process."""
    middles = centres(rows)
    for start in range(0, rows, BLOCK):
        generator = np.random.default_rng(1 + start)
        count = min(BLOCK, rows - start)
        yield unit(middles[generator.integers(0, len(middles), count)] + noise(generator, count))


def questions(rows: int, count: int) -> np.ndarray:
    generator, middles = np.random.default_rng(2**40), centres(rows)
    like_rows = unit(middles[generator.integers(0, len(middles), count)] + noise(generator, count))
    return unit(like_rows + noise(generator, count))


def write_table(folder: Path, options: argparse.Namespace) -> None:
    """The vectors as a corpus has them, `training` without pictures."""
    empty = {"media": b"", "num_frames": 1, "source": "", "license": "", "captions": [], "descriptions": []}
    settings = {"model": "synthetic", "width": WIDTH}
    entries: dict[str, list[dict[str, Any]]] = {"training": [], "vectors": []}
    for number, vectors in enumerate(blocks(options.rows)):
        count = len(vectors) // options.rows_each
        names = [f"{number:06d}-{place:06d}.jpg" for place in range(count)]
        items = [
            {
                "item_id": name,
                "uri": name,
                "sha256": f"{number:032x}{place:032x}",
                "split": "test",
                "media_type": "image",
            }
            for place, name in enumerate(names)
        ]
        columns = {
            "item_id": np.repeat(names, options.rows_each),
            "part": ["item", *["slot"] * (options.rows_each - 1)] * count,
            "view": list(map(str, range(options.rows_each))) * count,
            "vector": pa.FixedSizeListArray.from_arrays(vectors.ravel(), WIDTH),
            "model": ["synthetic"] * len(vectors),
            "content": np.repeat(names, options.rows_each),
        }
        tables = {
            "training": pa.Table.from_pylist([item | empty for item in items], SCHEMAS["training"]),
            "vectors": pa.table(columns, schema_of("vectors", settings)),
        }
        for name, table in tables.items():
            home = folder / "corpus" / name
            home.mkdir(parents=True, exist_ok=True)
            entries[name].append(write_shard(home / shard_name(number, -(-options.rows // BLOCK)), table))
    for name, shards in entries.items():
        write_manifest(
            folder / "corpus", name, parents={}, shards=shards, failures=[], settings=settings, fingerprint="", tools={}
        )


class AllRows:
    """A space in which every vector of an item is one of its rows."""

    def rows(self, items_NE: np.ndarray, slots: PartRows, views: PartRows) -> tuple[np.ndarray, np.ndarray]:
        """Item, slot, slot, item …"""
        slots_NKE, _ = slots.padded(len(items_NE))
        rows_NRE = np.concatenate([items_NE[:, None], slots_NKE[:, : len(slots.items_R) // len(items_NE)]], axis=1)
        return rows_NRE.reshape(-1, WIDTH), np.full(len(items_NE), rows_NRE.shape[1])


def build_ours(folder: Path, options: argparse.Namespace) -> None:
    items, space = CorpusItems([folder / "corpus"], None, ()), cast(Space, AllRows())
    settings = {"width": WIDTH, "dtype": options.dtype, "kind": options.kind}
    with index_writer(folder / "ours", origin={"space": "synthetic"}, **settings) as writer:
        writer.publish(lambda: items.blocks(space))


def build_faiss(folder: Path, options: argparse.Namespace) -> None:
    """All in memory, trained on as many rows as ours, written to a file."""
    kind = options.kind.replace("auto", "flat" if options.rows <= item_vectors.FLAT_ROWS else "ivf")
    index = item_vectors.empty_index(kind, options.dtype, options.rows, WIDTH)
    vectors = np.concatenate(list(blocks(options.rows)))
    if not index.is_trained:
        most = item_vectors.POINTS_A_LIST * index.nlist
        index.train(vectors[np.random.default_rng(0).permutation(len(vectors))[:most]])
    index.add(vectors)
    faiss.write_index(index, str(folder / "bare.faiss"))


def ask_ours(folder: Path, options: argparse.Namespace) -> None:
    """Open and answer, for its memory."""
    Generation.open(folder / "ours").vectors.search(questions(options.rows, options.queries), K)


CONTENDERS = {"write-table": write_table, "build-ours": build_ours, "build-faiss": build_faiss, "ask-ours": ask_ours}


def contend(folder: Path, options: argparse.Namespace) -> None:
    began = time.perf_counter()
    CONTENDERS[options.contender](folder, options)
    print(json.dumps(time.perf_counter() - began))


def started(contender: str, folder: Path, options: argparse.Namespace) -> tuple[float, float]:
    """Seconds and peak MiB of a contender in a process of its own."""
    names = ("rows", "rows_each", "queries", "dtype", "kind")
    given = [f"--{name.replace('_', '-')}={getattr(options, name)}" for name in names]
    process = measured([sys.executable, __file__, *given, f"--contender={contender}", f"--folder={folder}"])
    return json.loads(process.output.strip().splitlines()[-1]), process.peak_mib


def brute_force(vectors: np.ndarray, each: int) -> Answer:
    """The product with all rows, and the ten best items out of it."""

    def answer(queries_QE: np.ndarray) -> np.ndarray:
        scores_QN = (queries_QE @ vectors.T).reshape(len(queries_QE), -1, each).max(2)
        some_Qk = np.argpartition(-scores_QN, K, axis=1)[:, :K]
        order_Qk = np.argsort(-np.take_along_axis(scores_QN, some_Qk, 1), axis=1)
        return np.take_along_axis(some_Qk, order_Qk, 1)

    return answer


def bare(path: Path, kind: str, effort: int) -> Answer:
    index = faiss.read_index(str(path))
    if kind == "ivf":
        index.nprobe = effort
    return lambda queries_QE: index.search(queries_QE, K)[1]


def rate(answer: Answer, queries_QE: np.ndarray, batch: int) -> float:
    """Queries answered a second."""
    began = time.perf_counter()
    for start in range(0, len(queries_QE), batch):
        answer(queries_QE[start : start + batch])
    return len(queries_QE) / (time.perf_counter() - began)


def compare(folder: Path, options: argparse.Namespace) -> None:
    print(machine())
    rows, each = options.rows, options.rows_each
    print(f"{rows:,} rows of {WIDTH} values as {options.dtype}, {rows // each:,} items; {options.queries:,} queries")
    seconds, peaks = {}, {}
    for name in CONTENDERS:
        seconds[name], peaks[name] = started(name, folder, options)
    index = Generation.open(folder / "ours")
    kind, effort = index.vectors.kind, index.vectors.effort
    size = sum(path.stat().st_size for path in (folder / "ours").rglob("*") if path.is_file())
    lists = f", {index.vectors.index.nlist:,} lists" if kind == "ivf" else ""
    print(f"index: {kind}{lists}, effort {effort}; {size / 2**20:,.0f} MiB on disk\n")
    print(f"{'':<22}{'seconds':>10}{'peak memory, MiB':>20}")
    for name in CONTENDERS:
        print(f"{name:<22}{seconds[name]:>10.1f}{peaks[name]:>20,.0f}")
    print(f"build, ours / FAISS: {seconds['build-ours'] / seconds['build-faiss']:.2f} of the time, ", end="")
    print(f"{peaks['build-ours'] / peaks['build-faiss']:.2f} of the memory", end="")
    print(f"; {peaks['build-ours'] / (size / 2**20):.2f} of the index on disk\n")

    vectors, queries_QE = np.concatenate(list(blocks(rows))), questions(rows, options.queries)
    answers: dict[str, Answer] = {
        "ours": lambda queries_QE: index.vectors.search(queries_QE, K)[1],
        "FAISS": bare(folder / "bare.faiss", kind, effort),
        "NumPy": brute_force(vectors, each),
    }
    print_recall(answers, queries_QE, each)
    for batch in (BATCH, 1):
        # one at a time, brute force would take the longest and say nothing new: fewer are enough
        asked = queries_QE if batch > 1 else queries_QE[: max(20, options.queries // 10)]
        rates: dict[str, list[float]] = {name: [] for name in answers}
        for _ in range(options.rounds):
            for name, answer in answers.items():
                rates[name].append(rate(answer, asked, batch))
        print_rates(rates, batch)


def print_recall(answers: dict[str, Answer], queries_QE: np.ndarray, each: int) -> None:
    results = {
        name: np.concatenate([answer(queries_QE[start : start + BATCH]) for start in range(0, len(queries_QE), BATCH)])
        for name, answer in answers.items()
    }
    ours = recall(results["ours"], results["NumPy"])
    print(f"recall@{K}: ours {ours:.4f} (goal: 0.95 or more)", end="")
    print(f", FAISS {recall(results['FAISS'], results['NumPy']):.4f}" if each == 1 else "")


def print_rates(rates: dict[str, list[float]], batch: int) -> None:
    print(f"\n{f'{batch} at once, queries/s' if batch > 1 else 'one at a time, queries/s':<30}")
    for name, values in rates.items():
        print(f"  {name:<10}{spread(values, 0):>40}")
    for other in ("FAISS", "NumPy"):
        ratios = [one / two for one, two in zip(rates["ours"], rates[other], strict=True)]
        goal = " (goal: 0.8 or more)" if other == "FAISS" and batch > 1 else ""
        print(f"  ours / {other}: {statistics.median(ratios):,.2f}{goal}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000, help="vectors (1000000)")
    parser.add_argument("--rows-each", type=int, default=1, help="of an item; a divisor of 10000 (1)")
    parser.add_argument("--queries", type=int, default=1_000, help="(1000)")
    parser.add_argument("--rounds", type=int, default=5, help="in which those that search take turns (5)")
    parser.add_argument("--dtype", choices=item_vectors.DTYPES, default="float32", help="of the values (float32)")
    parser.add_argument("--kind", choices=("auto", *item_vectors.KINDS), default="auto", help="of index (auto)")
    parser.add_argument("--quick", action="store_true", help="20,000 rows in an IVF index, 200 queries, 2 rounds")
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contender:
        contend(options.folder, options)
        return
    if options.quick:
        options.rows, options.queries, options.rounds, options.kind = 20_000, 200, 2, "ivf"
    with tempfile.TemporaryDirectory() as name:
        compare(Path(name), options)


if __name__ == "__main__":
    main()

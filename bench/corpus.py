"""Does a corpus stay cheap as it grows? Memory of ingest, a repeated run, shards beside plain pyarrow and `datasets`,
verification by the number of shards.

python bench/corpus.py                     10,000 and 100,000 small images
python bench/corpus.py --items 2000        a tenth of 2,000, and 2,000
"""

import argparse
import contextlib
import io
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import pyarrow as pa
from PIL import Image

from bench.common import commented, machine, measured, spread, stage
from pipeline.corpus.schema import SCHEMAS
from pipeline.corpus.table import BATCH_ROWS, Table, shard_name, write_manifest, write_shard
from pipeline.hashing import short_hash
from pipeline.storage.files import write_file
from stages.verify import verify

SIDE = 32  # pixels
IN_FOLDER = 1_000
SHARD_ROWS = 5_000  # of descriptions: 1,000 items, five views
PAGE = 4_096
PLAN = """
import sys, pathlib
sys.path.insert(0, "")
from pipeline.sources import listing
from stages.ingest import Ingest
count, corpus = int(sys.argv[1]), pathlib.Path(sys.argv[2])
listing._list_local = lambda root, account: (f"{n // 1000:05d}/{n * 7919 % 1000:03d}.jpg" for n in range(count))
corpus.mkdir()
assert Ingest(inputs=(str(corpus),)).plan(corpus, print)[1] == count
"""


def make_images(folder: Path, count: int) -> None:
    """`count` JPEGs of SIDE × SIDE pixels and distinct bytes, in folders of 1,000."""
    generator = np.random.default_rng(0)
    originals = []
    for _ in range(100):
        stream = io.BytesIO()
        coarse = Image.fromarray(generator.integers(0, 255, (5, 5, 3), dtype=np.uint8))
        coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(stream, "JPEG", quality=85)
        originals.append(stream.getvalue())
    for number in range(count):
        inside = folder / f"{number // IN_FOLDER:04d}"
        if number % IN_FOLDER == 0:
            inside.mkdir(parents=True)
        (inside / f"{number:07d}.jpg").write_bytes(commented(originals[number % 100], f"image {number}"))


def disk_mib(folder: Path) -> float:
    return sum(path.stat().st_blocks for path in folder.rglob("*")) * 512 / 2**20


def ingest(folder: Path, items: int) -> dict[str, float]:
    """Stage ingest at a tenth and at all of the items, each twice; the second run finds its stage finished."""
    peaks, seconds, ratios = [], [], []
    print(f"\ningest: images of {SIDE} x {SIDE} pixels, the whole command in a process of its own")
    print(f"{'images':>10}{'first run s':>14}{'images/s':>12}{'peak MiB':>12}{'repeated s':>14}{'of the first':>15}")
    for count in (items // 10, items):
        images, corpus = folder / f"images-{count}", folder / f"corpus-{count}"
        make_images(images, count)
        note = f"  ({disk_mib(images):,.0f} MiB of images on disk)"
        first = stage("ingest", corpus, "--input", images, "--strict")
        second = stage("ingest", corpus, "--input", images, "--strict")
        rows = Table(corpus, "items").num_rows
        if rows != count or "nothing to do" not in second.output:
            raise SystemExit(
                f"got {rows:,} rows, wanted {count:,}, and a second run with nothing to do: {second.output}"
            )
        peaks.append(first.peak_mib)
        seconds.append(first.wall_s)
        ratios.append(second.wall_s / first.wall_s)
        numbers = f"{count:>10,}{first.wall_s:>14.1f}{count / first.wall_s:>12,.0f}{first.peak_mib:>12.0f}"
        print(f"{numbers}{second.wall_s:>14.1f}{ratios[-1]:>15.1%}{note}", flush=True)
        shutil.rmtree(images)
    print(f"peak memory at {items:,} / at {items // 10:,}: {peaks[1] / peaks[0]:.2f} (wanted: <= 1.3)")
    print(f"repeated run / first run at {items:,}: {ratios[1]:.1%} (wanted: under 5 %)")
    return {"memory": peaks[1] / peaks[0], "repeated": ratios[1], "rate": items / seconds[1]}


def planning(folder: Path, items: int) -> float:
    """Peak memory of listing and planning at a tenth and at all of the items. The files are named, none exists."""
    peaks = []
    print(f"\nlisting and planning: simulated files, in a process of its own\n{'files':>12}{'s':>10}{'peak MiB':>12}")
    for count in (items // 10, items):
        done = measured([sys.executable, "-c", PLAN, count, folder / f"plan-{count}"])
        peaks.append(done.peak_mib)
        print(f"{count:>12,}{done.wall_s:>10.1f}{done.peak_mib:>12.0f}", flush=True)
    print(f"peak memory at {items:,} / at {items // 10:,}: {peaks[1] / peaks[0]:.2f} (wanted: <= 1.3)")
    return peaks[1] / peaks[0]


def descriptions(rows: int) -> pa.Table:
    """Rows as an MLLM writes them: texts of 60 to 600 characters, the other columns repeating."""
    generator = random.Random(0)
    words = [short_hash(str(number))[: generator.randint(2, 9)] for number in range(3_000)]
    made = []
    for number in range(rows):
        item, view = divmod(number, 5)
        made.append(
            {
                "item_id": f"{item // IN_FOLDER:04d}/{item:07d}.jpg",
                "view": ("short", "detail", "objects", "attributes", "actions")[view],
                "text": " ".join(generator.choices(words, k=generator.randint(10, 100))),
                "language": "en",
                "captioner": "Qwen/Qwen2.5-VL-7B-Instruct",
                "revision": "",
                "prompt_id": short_hash(str(view)),
                "decoding": '{"max_pixels":589824,"max_tokens":128,"temperature":0.0}',
                "finish_reason": "stop",
                "prompt_tokens": 700,
                "completion_tokens": 60,
                "flags": [],
                "frame_times_s": [],
                "sha256": 4 * short_hash(str(item)),
            }
        )
    return pa.Table.from_pylist(made, SCHEMAS["descriptions"])


def small_shards(corpus: Path, shards: int) -> None:
    """A corpus of items and their descriptions with one row in each shard."""
    item = {"item_id": "a", "media_type": "image", "uri": "/a.jpg", "sha256": "", "width": 1, "height": 1}
    item |= {"num_frames": 1, "duration_s": None, "split": "train", "source": "bench", "license": ""}
    tables = {"items": pa.Table.from_pylist([item], SCHEMAS["items"]), "descriptions": descriptions(1)}
    tables["descriptions"] = tables["descriptions"].set_column(0, SCHEMAS["descriptions"].field("item_id"), [["a"]])
    for name, table in tables.items():
        (corpus / name).mkdir(parents=True)
        entry = write_shard(corpus / name / shard_name(0, shards), table)
        for index in range(1, shards):
            shutil.copy(corpus / name / shard_name(0, shards), corpus / name / shard_name(index, shards))
        parents = {"items": corpus / "items"} if name == "descriptions" else {}
        made_with = {"settings": {}, "fingerprint": "", "tools": {}}
        write_manifest(corpus, name, parents=parents, shards=[entry] * shards, failures=[], **made_with)


def verification(folder: Path, shards: int) -> float:
    """Time of `verify` for each shard at `shards` shards, over that at a twentieth of them."""
    times = []
    for count in (shards // 20, shards):
        corpus = folder / f"verify-{count}"
        small_shards(corpus, count)
        repeats = shards // count
        seconds = timed(lambda corpus=corpus, repeats=repeats: [verify(corpus) for _ in range(repeats)])
        times.append(seconds / repeats / count)
        print(f"verify: {count:>7,} shards of two tables, {1_000 * times[-1]:.3f} ms a shard", flush=True)
        if verify(corpus)[1]:
            raise SystemExit(f"the corpus does not verify: {verify(corpus)[1][:3]}")
        shutil.rmtree(corpus)
    print(f"time for a shard at {shards:,} / at {shards // 20:,}: {times[1] / times[0]:.2f} (wanted: <= 1.3)")
    return times[1] / times[0]


def timed(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


def write_plain(path: Path, table: pa.Table, durability: str) -> None:
    """The same stream file by pyarrow alone, in batches of the same size: unsynced, synced, or renamed as well."""
    with write_file(path) if durability == "renamed" else path.open("wb") as stream:
        with pa.ipc.new_stream(stream, table.schema) as writer:
            writer.write_table(table, max_chunksize=BATCH_ROWS)
        if durability == "synced":
            stream.flush()
            os.fsync(stream.fileno())


def touch(batches: Iterator[pa.RecordBatch]) -> int:
    """Reads a byte of every page of every buffer: what is mapped is not yet read."""
    total = 0
    for batch in batches:
        for column in batch.columns:
            for buffer in column.buffers():
                if buffer is not None and buffer.size:
                    total += int(np.frombuffer(buffer, np.uint8)[::PAGE].sum())
    return total


def read_plain(paths: list[Path]) -> Iterator[pa.RecordBatch]:
    for path in paths:
        with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as reader:
            yield from reader


def shards(folder: Path, rows: int, repeats: int) -> dict[str, float]:
    """Writing and sequential reading as ratios of throughput to plain pyarrow's; the contenders take turns."""
    table = descriptions(rows)
    parts = [table.slice(start, SHARD_ROWS) for start in range(0, rows, SHARD_ROWS)]
    ours, plain = folder / "shards" / "descriptions", folder / "plain"
    ours.mkdir(parents=True)
    plain.mkdir()
    paths = [ours / shard_name(index, len(parts)) for index in range(len(parts))]
    names = [plain / path.name for path in paths]
    entries: list[dict[str, Any]] = []
    pairs, plain_pairs = list(zip(paths, parts, strict=True)), list(zip(names, parts, strict=True))
    writes: dict[str, list[float]] = {name: [] for name in ("ours", "renamed", "synced", "unsynced")}
    for _ in range(repeats):
        entries.clear()
        writes["ours"].append(timed(lambda: entries.extend(write_shard(*pair) for pair in pairs)))
        for name in ("renamed", "synced", "unsynced"):
            writes[name].append(timed(lambda name=name: [write_plain(*pair, name) for pair in plain_pairs]))
    if [path.read_bytes() for path in paths] != [path.read_bytes() for path in names]:
        raise SystemExit("the shards differ from plain pyarrow's files: what was compared is not the same work")
    made = {"stage": "captions", "settings": {}, "fingerprint": "", "tools": {}, "parents": (), "failures": []}
    write_manifest(folder / "shards", "descriptions", shards=entries, **made)
    opened = Table(folder / "shards", "descriptions")
    reads: dict[str, list[float]] = {"ours": [], "plain": []}
    if touch(opened.batches()) != touch(read_plain(names)):
        raise SystemExit("Table.batches gives other bytes than plain pyarrow")
    for _ in range(5 * repeats):
        reads["ours"].append(timed(lambda: touch(opened.batches())))
        reads["plain"].append(timed(lambda: touch(read_plain(names))))
    size_mib = sum(entry["bytes"] for entry in entries) / 2**20
    rates = {name: [size_mib / second for second in times] for name, times in writes.items()}
    read_rates = {name: [size_mib / second for second in times] for name, times in reads.items()}
    note = f"{rows:,} description rows, {len(parts)} files, {size_mib:,.0f} MiB"
    print(f"\nshards: {note}; MiB/s, median (least to greatest)")
    print(f"  write_shard: checksum, fsync, rename, fsync of the folder  {spread(rates['ours'], 0):>26}")
    print(f"  plain pyarrow with fsync, rename, fsync of the folder      {spread(rates['renamed'], 0):>26}")
    print(f"  plain pyarrow with fsync                                   {spread(rates['synced'], 0):>26}")
    print(f"  plain pyarrow without fsync (the disk has it some day)     {spread(rates['unsynced'], 0):>26}")
    print(f"  Table.batches, a byte of every page read                   {spread(read_rates['ours'], 0):>26}")
    print(f"  plain pyarrow.ipc.open_stream, mapped, read likewise       {spread(read_rates['plain'], 0):>26}")
    middle = {name: statistics.median(values) for name, values in rates.items()}
    ratio = {name: middle["ours"] / middle[name] for name in middle}
    read = statistics.median(read_rates["ours"]) / statistics.median(read_rates["plain"])
    print(f"writing / plain with fsync: {ratio['synced']:.2f} (wanted: >= 0.8)")
    print(f"writing / plain as durable: {ratio['renamed']:.2f}; / plain without fsync: {ratio['unsynced']:.2f}")
    print(f"sequential reading / plain: {read:.2f} (wanted: >= 0.8)")
    random_rows(opened, rows)
    return {"write": ratio["synced"], "durable": ratio["renamed"], "read": read}


def random_rows(table: Table, rows: int, count: int = 5_000) -> None:
    """Rows in random order as dictionaries: from mapped shards that are kept open, and from `datasets`."""
    try:
        import datasets
    except ImportError:
        print("random rows: not compared, datasets is not installed")
        return
    wanted = [random.Random(1).randrange(rows) for _ in range(count)]
    opened = [table.shard(index) for index in range(table.num_shards)]

    def from_shards() -> list[dict[str, Any]]:
        places = (divmod(row, SHARD_ROWS) for row in wanted)
        return [opened[index].slice(row, 1).to_pylist()[0] for index, row in places]

    files = (datasets.Dataset.from_file(str(table.shard_path(index))) for index in range(table.num_shards))
    peer = datasets.concatenate_datasets(list(files))
    if from_shards()[:100] != [peer[row] for row in wanted[:100]]:
        raise SystemExit("the rows differ from those that datasets reads")
    ours = [count / timed(from_shards) for _ in range(3)]
    theirs = [count / timed(lambda: [peer[row] for row in wanted]) for _ in range(3)]
    print(f"random rows/s: shards kept open {spread(ours, 0)}, datasets.Dataset.from_file {spread(theirs, 0)}")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=100_000, help="images; a tenth is compared with (default: 100000)")
    parser.add_argument("--listed", type=int, default=10_000_000, help="simulated files to plan (default: 10000000)")
    parser.add_argument("--shards", type=int, default=20_000, help="shards to verify, and a twentieth (default: 20000)")
    parser.add_argument("--rows", type=int, default=200_000, help="description rows (default: 200000)")
    parser.add_argument(
        "--repeats", type=int, default=9, help="runs of writing; of reading five times as many (default: 9)"
    )
    options = parser.parse_args(argv)
    print(machine())
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-corpus-")))
        seen = shards(folder, options.rows, options.repeats) | ingest(folder, options.items)
        seen["planning"] = planning(folder, options.listed)
        seen["verify"] = verification(folder, options.shards)
    print(machine())
    print(
        f"corpus: memory x {seen['memory']:.2f} at ten times the images, planning x {seen['planning']:.2f}, "
        f"repeated run {seen['repeated']:.1%}, "
        f"{seen['rate']:,.0f} images/s, writing {seen['write']:.2f} of plain pyarrow with fsync "
        f"({seen['durable']:.2f} of one as durable), reading {seen['read']:.2f}, "
        f"verify {seen['verify']:.2f} of the time for a shard at twenty times the shards"
    )


if __name__ == "__main__":
    main()

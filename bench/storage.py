"""What does an object store cost? Shards next to plain obstore, captions next to a folder, Dask, and many shards.

    python bench/storage.py                    writing and reading, captions, captions on two Dask workers
    python bench/storage.py --part scale       start, resume, verify and close of a corpus of 1,000 to 100,000 shards
    python bench/storage.py --part scale --keep FOLDER    keeps the store, to measure its corpora again

The store is SeaweedFS on loopback. The corpora of `scale` are real but for their size: shards of one picture, copies
of one that the program has made; plan, sidecars and manifests are as long as those of shards of a thousand.
"""

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pyarrow as pa

from bench.captions import make_photos
from bench.common import ROOT, machine, spread, stage
from bench.corpus import SHARD_ROWS, descriptions, timed, touch
from pipeline.corpus.commit import mark_incomplete
from pipeline.corpus.table import (
    Table,
    read_shard,
    shard_name,
    state_folder,
    write_json,
    write_manifest,
    write_shard,
)
from pipeline.hashing import stream_hash
from pipeline.storage.files import location, read_ahead, user_cache
from tests.loopback import Loopback
from tests.object_store import ObjectStore, free_ports

MADE_BY = {"items": "ingest", "captions": "ingest", "descriptions": "captions"}
WRITERS = 32
SHARD_ITEMS = 100


@contextlib.contextmanager
def store_in(folder: Path) -> Iterator[ObjectStore]:
    """A store that this process and its children use, with a cache of their own."""
    (folder / "weed").mkdir(parents=True, exist_ok=True)
    store = ObjectStore(folder / "weed")
    os.environ.update(store.environment, XDG_CACHE_HOME=str(folder / "cache"))
    store.start()
    location("s3://corpora/begun").write_bytes(b"")  # the store makes a bucket with its first object
    try:
        yield store
    finally:
        store.stop()


class Multiplied:
    """Corpora of many shards, each with the rows of the one item of a corpus that the program has made."""

    def __init__(self, corpus: Path):
        self.tables = {name: Table(corpus, name) for name in MADE_BY}
        self.rows = {name: table.shard(0) for name, table in self.tables.items()}
        self.state = state_folder(corpus)

    def shard(self, table: str, index: int) -> tuple[bytes, dict[str, Any]]:
        """The bytes of a shard, whose item has an id of its own, and its manifest entry."""
        rows, sink = self.rows[table], pa.BufferOutputStream()
        column = pa.array([f"{index:08d}.jpg"] * rows.num_rows, pa.string())
        rows = rows.set_column(rows.schema.names.index("item_id"), rows.schema.field("item_id"), column)
        with pa.ipc.new_stream(sink, rows.schema) as stream:
            stream.write_table(rows)
        data = sink.getvalue().to_pybytes()
        return data, {"rows": rows.num_rows, "bytes": len(data), "sha256": stream_hash(pa.BufferReader(data))}

    def write(self, corpus: Path, count: int) -> None:
        """Write a corpus of `count` shards: plan, shards, sidecars, manifests."""
        template = {name: json.loads((self.state / name / "part-00000.json").read_bytes()) for name in MADE_BY.values()}
        plan = [{"rows": 1, "bytes": 1_000, "sha256": f"{index:064x}"} for index in range(count)]

        def write_index(index: int) -> dict[str, dict[str, Any]]:
            entries, parent = {}, {"ingest": plan[index]["sha256"]}
            for table in MADE_BY:
                data, entries[table] = self.shard(table, index)
                (corpus / table / shard_name(index, count)).write_bytes(data)
            parent["captions"] = entries["items"]["sha256"]
            for name, sidecar in template.items():
                own = {table: entries[table] for table in sidecar["tables"]}
                path = state_folder(corpus) / name / f"part-{index:05d}.json"
                write_json(path, {**sidecar, "count": count, "parent": parent[name], "tables": own})
            return {table: {**entries[table], "parent": parent[MADE_BY[table]], "items": 1} for table in MADE_BY}

        for name in template:
            write_json(state_folder(corpus) / name / "settings.json", json.loads(self.settings(name)))
        write_json(state_folder(corpus) / "plan" / "plan.json", {"items": 1_000 * count, "shards": plan})
        with ThreadPoolExecutor(WRITERS) as pool:
            listed = list(pool.map(write_index, range(count)))
        for name, table in self.tables.items():
            made_with = {key: table.manifest[key] for key in ("settings", "fingerprint", "tools")}
            parents = {parent: corpus / parent for parent in table.manifest["parents"]}
            entries = [entry[name] for entry in listed]
            write_manifest(corpus, name, parents=parents, shards=entries, failures=[], **made_with)

    def settings(self, name: str) -> bytes:
        return (self.state / name / "settings.json").read_bytes()


class Requests:
    """What a store at this port for metrics has answered since it was asked last, by kind."""

    def __init__(self, port: int):
        self._url, self._before = f"http://127.0.0.1:{port}/metrics", Counter()
        self.new()

    def new(self) -> str:
        metrics = urllib.request.urlopen(self._url).read().decode()
        counts: Counter[str] = Counter()
        for kind, number in re.findall(r'^SeaweedFS_s3_request_total\{.*type="(\w+)"\} (\S+)', metrics, re.MULTILINE):
            counts[kind] += int(float(number))
        new, self._before = counts - self._before, counts
        return ", ".join(f"{number:,} {kind}" for kind, number in sorted(new.items())) or "none"


def first_request(server: Loopback, corpus: Path, *arguments: object) -> tuple[float, float]:
    """Run captions; seconds from the command to its first request, and from there to its end."""
    command = [sys.executable, "beam_runner.py", "--stage", "captions", "--output", corpus, *map(str, arguments)]
    before, began = server.stats()["requests"], time.monotonic()
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL)
    while process.poll() is None and server.stats()["requests"] == before:
        time.sleep(0.05)
    asked = time.monotonic()
    if process.wait():
        raise SystemExit(f"captions ended with {process.returncode}")
    return asked - began, time.monotonic() - asked


def scale(folder: Path, counts: list[int]) -> None:
    """Start, resume, verify and close of corpora of so many shards."""
    if not (folder / "photos").exists():
        make_photos(folder / "photos", 1)
    with Loopback() as server, store_in(folder) as store:
        requests = Requests(store.ports["metricsPort"])
        given = ("--mllm-url", server.url, "--views", "short")
        stage("captions", folder / "one", "--input", folder / "photos", *given)
        multiplied = Multiplied(folder / "one")
        for count in counts:
            corpus = location(f"s3://corpora/of-{count}")
            if not (corpus / "descriptions" / "manifest.json").exists():
                began = time.monotonic()
                multiplied.write(corpus, count)
                print(f"{count:,} shards written in {time.monotonic() - began:.0f} s. {machine()}", flush=True)
            measure_scale(server, requests, corpus, count, given)


def measure_scale(server: Loopback, requests: Requests, corpus: Path, count: int, given: tuple[object, ...]) -> None:
    requests.new()

    def show(name: str, seconds: str) -> None:
        print(f"{count:>9,}  {name:<28}{seconds:<44}requests: {requests.new()}", flush=True)

    def measure(name: str, stage_name: str, *arguments: object) -> None:
        done = stage(stage_name, corpus, *arguments)
        show(name, f"{done.wall_s:.1f} s, {done.cpu_s:.1f} s of CPU, {done.peak_mib:.0f} MiB")

    for name in ("close, with the card", "resume, nothing to do"):
        measure(name, "captions", *given)
    index = count // 2
    (corpus / "descriptions" / shard_name(index, count)).unlink()
    (state_folder(corpus) / "captions" / f"part-{index:05d}.json").unlink()
    mark_incomplete(corpus, ["descriptions"])
    start_s, rest_s = first_request(server, corpus, *given)
    show("resume, one shard missing", f"{start_s:.1f} s to its request, {rest_s:.1f} s to the end")
    measure("verify", "verify")
    print(machine(), flush=True)


def shards(folder: Path, rows: int, repeats: int) -> tuple[float, float]:
    """Shards written to and read from the store and a folder; throughput relative to obstore with the same bytes."""
    table = descriptions(rows)
    parts = [table.slice(start, SHARD_ROWS) for start in range(0, rows, SHARD_ROWS)]
    names = [shard_name(index, len(parts)) for index in range(len(parts))]
    local = folder / "shards"
    local.mkdir()
    seconds: dict[str, list[float]] = {}

    def time_turns(turns: dict[str, Callable[[int], object]]) -> None:
        for name, work in turns.items():
            times = seconds.setdefault(name, [])
            in_turn = read_ahead if "ahead" in name else map
            shutil.rmtree(user_cache(), ignore_errors=True)
            times.append(timed(lambda work=work, in_turn=in_turn: list(in_turn(work, range(len(parts))))))

    for number in range(repeats):
        ours, plain = (location(f"s3://corpora/{name}-{number}") for name in ("ours", "plain"))
        entries = [write_shard(local / name, part) for name, part in zip(names, parts, strict=True)]
        data = [(local / name).read_bytes() for name in names]

        def read(index: int, ours: Path = ours, entries: list[dict[str, Any]] = entries) -> None:
            touch(iter(read_shard(ours / names[index], entries[index]).to_batches()))

        time_turns(
            {
                "write, folder": lambda index: write_shard(local / names[index], parts[index]),
                "write, store": lambda index, ours=ours: write_shard(ours / names[index], parts[index], None),
                "write, obstore": lambda index, to=plain, data=data: to.store.put(f"{to.key}/{index}", data[index]),
                "read, folder": lambda index: touch(iter(read_shard(local / names[index]).to_batches())),
                "read, store": read,
                "read ahead, store": read,
                "read, obstore": lambda index, of=plain: of.store.get(f"{of.key}/{index}").bytes(),
            }
        )
    size_mib = sum(map(len, data)) / 2**20
    print(f"\n{len(parts)} shards of {rows:,} descriptions, {size_mib:.0f} MiB; MiB/s, median (least to greatest)")
    for name, times in seconds.items():
        print(f"  {name:<16}{spread([size_mib / second for second in times], 0):>24}", flush=True)

    def ratio(plain: str, ours: str) -> float:
        return statistics.median(theirs / own for theirs, own in zip(seconds[plain], seconds[ours], strict=True))

    return ratio("write, obstore", "write, store"), ratio("read, obstore", "read ahead, store")


def rate_of(corpus: Path, slots: int, window: int, *arguments: object) -> float:
    """Requests per second at a server of its own while captions are made for an ingested corpus."""
    with Loopback(slots=slots, latency_s=0.5, sigma=0.6, digest=False) as server:
        stage("captions", corpus, "--mllm-url", server.url, "--window", window, *arguments)
        return server.stats()["per_second"]


def compared(name: str, repeats: int, turns: dict[str, Callable[[int], float]]) -> float:
    """The second one's rate relative to the first one's, taking turns."""
    rates: dict[str, list[float]] = {turn: [] for turn in turns}
    for number in range(repeats):
        for turn, rate in turns.items():
            rates[turn].append(rate(number))
    print(f"\n{name}; requests/s at the server, median (least to greatest). {machine()}")
    for turn, values in rates.items():
        print(f"  {turn:<24}{spread(values, 1):>24}", flush=True)
    first, second = rates.values()
    return statistics.median(theirs / ours for theirs, ours in zip(second, first, strict=True))


def ingested(photos: Path, corpus: Path) -> Path:
    stage("ingest", corpus, "--input", photos, "--shard-size", SHARD_ITEMS)
    return corpus


def captions(folder: Path, photos: Path, repeats: int) -> float:
    """Captions into the store relative to captions into a folder, at a server of 64 slots."""
    turns = {
        "into a folder": lambda number: rate_of(ingested(photos, folder / f"local-{number}"), 64, 80),
        "into the store": lambda number: rate_of(ingested(photos, location(f"s3://corpora/captions-{number}")), 64, 80),
    }
    return compared("64 slots", repeats, turns)


def dask(folder: Path, photos: Path, repeats: int, python: str) -> float:
    """Captions on two Dask workers with a cache each relative to those of one process, at a server of 128 slots."""
    port = free_ports(1)[0]
    address = f"tcp://127.0.0.1:{port}"
    commands = [["scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard"]]
    commands += 2 * [["worker", address, "--nthreads", "2", "--nworkers", "1", "--no-dashboard"]]
    with contextlib.ExitStack() as stack:
        for number, command in enumerate(commands):
            environment = {**os.environ, "XDG_CACHE_HOME": str(folder / f"dask-{number}"), "PYTHONPATH": str(ROOT)}
            log = stack.enter_context((folder / f"dask-{number}.log").open("wb"))
            program = [python, "-m", "dask", *map(str, command)]
            process = subprocess.Popen(program, cwd=folder, env=environment, stdout=log, stderr=log)
            stack.callback(process.wait)
            stack.callback(process.send_signal, signal.SIGKILL)
        runner = ("--runner", "DaskRunner", "--dask_client_address", address)
        turns = {
            "one process": lambda number: rate_of(ingested(photos, location(f"s3://corpora/one-{number}")), 128, 160),
            "two Dask workers": lambda number: rate_of(
                ingested(photos, location(f"s3://corpora/dask-{number}")), 128, 80, *runner
            ),
        }
        return compared("128 slots", repeats, turns)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--part", choices=("all", "shards", "captions", "dask", "scale"), default="all", help="scale is not in all")
    add("--shards", type=int, nargs="+", default=[1_000, 10_000, 100_000], help="shards of scale's corpora")
    add("--keep", type=Path, help="folder for the store of scale, which is kept")
    add("--rows", type=int, default=100_000, help="description rows that are written and read (default: 100000)")
    add("--photos", type=int, default=2_000, help="photographs, five requests each (default: 2000)")
    add("--repeats", type=int, default=3, help="rounds, in which the contenders take turns (default: 3)")
    options = parser.parse_args(argv)
    print(machine())
    with contextlib.ExitStack() as stack:
        folder = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-storage-")))
        folder.mkdir(parents=True, exist_ok=True)
        if options.part == "scale":
            scale(folder.absolute(), options.shards)
            return
        stack.enter_context(store_in(folder))
        ratios = dict.fromkeys(("write", "read", "captions", "dask"), "not measured")
        if options.part in ("all", "shards"):
            ratios["write"], ratios["read"] = (
                f"{ratio:.2f}" for ratio in shards(folder, options.rows, options.repeats)
            )
        if options.part in ("all", "captions", "dask"):
            print(f"\n{make_photos(folder / 'photos', options.photos)}, {SHARD_ITEMS} in a shard")
        if options.part in ("all", "captions"):
            ratios["captions"] = f"{captions(folder, folder / 'photos', options.repeats):.2f}"
        if options.part in ("all", "dask"):
            ratios["dask"] = f"{dask(folder, folder / 'photos', options.repeats, sys.executable):.2f}"
    print(
        f"storage: write {ratios['write']}, read {ratios['read']} of obstore; captions {ratios['captions']} of local; "
        f"Dask {ratios['dask']} of one process"
    )


if __name__ == "__main__":
    main()

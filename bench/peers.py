"""`--stage captions` and its peers in one run: the same chat server, the same pictures, the same machine.

    python bench/peers.py                             all peers, each installed into an environment of its own
    python bench/peers.py --environments FOLDER       the same; the environments are kept for the next run
    python bench/peers.py --only Ray nemo --requests 1000 --latency 2

Measured of each, one after the other: requests per second at the server, as a ratio to what a bare aiohttp client with
prepared payloads reaches; CPU seconds of the whole command with all its processes; how many rows are right after a run
in which a tenth of the answers are faults; and, killed (SIGKILL to all of its processes) when half is answered and
started again with the same command, how many rows are right and how many answers were paid for twice. `peer_clients.py`
has the peers with their settings.
"""

import argparse
import contextlib
import dataclasses
import io
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import psutil
from PIL import Image

from bench.captions import originals
from bench.common import LAUNCHER, ROOT, machine, spread
from bench.contenders import JPEG_QUALITY, VIEWS
from pipeline.captioning.captioners import question
from pipeline.corpus.table import Table
from pipeline.media.images import jpegs
from tests.loopback import Loopback, answer_text

MAX_PIXELS = 768 * 768
MODEL = "loopback"
FAULTS = ("500", "429", "reset_before", "reset_midway")
LIMIT_S = 300.0  # of one command


@dataclasses.dataclass(frozen=True)
class Contender:
    """One way to have pictures described: `client` is a function of peer_clients.py, or `stage` or `bare`."""

    name: str
    client: str
    packages: tuple[str, ...] = ()


BARE, STAGE = Contender("bare aiohttp client", "bare"), Contender("`--stage captions`", "stage")
PEERS = (
    Contender(
        "datatrove", "datatrove", ("datatrove==0.10.1", "aiohttp", "httpx", "xxhash", "aiosqlite", "aiofiles", "orjson")
    ),
    Contender("Ray Data", "ray", ("ray[data]==2.60.0", "aiohttp", "pydantic")),
    Contender("NeMo Curator", "nemo", ("nemo-curator==1.4.0",)),
    Contender("distilabel", "distilabel", ("distilabel[openai]==1.5.3", "requests", "pillow")),
    Contender("Beam RunInference", "beam", ("apache-beam==2.77.0", "openai")),
)


@dataclasses.dataclass(frozen=True)
class Result:
    """A finished command: its exit status, CPU seconds, the server's statistics, and how its rows compare."""

    status: int
    cpu_s: float
    stats: dict[str, Any]
    rows: Counter[str]

    @property
    def rate(self) -> float:
        """Requests per second at the server."""
        return self.stats["per_second"]

    def summary(self) -> str:
        """How many rows are right, and what is not as it should be."""
        others = (f"{self.rows[name]:,} {name}" for name in ("lost", "wrong", "doubled") if self.rows[name])
        ended = f" (exit status {self.status})" if self.status else ""
        return ", ".join([f"{self.rows['right']:,}", *others]) + ended


class Arena:
    """Pictures and questions, the environments of the peers, and a fresh server for every command."""

    def __init__(self, folder: Path, environments: Path, options: argparse.Namespace):
        self.folder, self.environments, self.options = folder, environments, options
        self.pictures = folder / "pictures"
        self.tasks: list[dict[str, Any]] = []
        self.expected: dict[str, str] = {}
        self.pictures.mkdir()
        most = max(options.requests, options.faulty, options.killed)
        for name, jpeg in pictures(math.ceil(most / len(VIEWS))):
            path = self.pictures / name
            path.write_bytes(jpeg)
            for view in VIEWS:
                task = {"id": f"{name}/{view.name}", "path": str(path), "prompt": question(view, ())}
                self.tasks.append({**task, "max_tokens": view.max_tokens})
                self.expected[task["id"]] = answer_text([jpeg], task["prompt"])

    def install(self, peer: Contender) -> str:
        """Make a peer's environment; returns versions of its packages, or raises RuntimeError with pip's error."""
        folder = self.environments / peer.client
        python = folder / "bin" / "python"
        if not (folder / "complete").exists():
            subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
            command = [python, "-m", "pip", "install", "--no-cache-dir", "--quiet", *peer.packages]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
                raise RuntimeError((errors or done.stderr.splitlines() or ["pip failed"])[-1])
            (folder / "complete").touch()
        name = peer.packages[0].partition("==")[0].partition("[")[0]
        ask = f"from importlib.metadata import version; print(version({name!r}))"
        return subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True).stdout.strip()

    def command(self, contender: Contender, tasks: Path, output: Path, pictures: Path, url: str, num: int) -> list[Any]:
        """The command line of a contender."""
        window = self.options.window
        if contender.client == "stage":
            command = [sys.executable, "beam_runner.py", "--stage", "captions", "--input", pictures, "--output", output]
            return [*command, "--mllm-url", url, "--window", window, "--max-pixels", MAX_PIXELS]
        if contender.client == "bare":
            command = [sys.executable, "-c", "from bench.contenders import main; main()", "bare", pictures]
            given = {"url": url, "model": MODEL, "requests": num, "window": window, "max-pixels": MAX_PIXELS}
            return [*command, *(f"--{name}={value}" for name, value in given.items())]
        command = [self.environments / contender.client / "bin" / "python", "bench/peer_clients.py", contender.client]
        return [*command, tasks, output, "--url", url, "--model", MODEL, "--window", window]

    def run(self, contender: Contender, num: int, *, kill: bool = False, **settings: Any) -> Result:
        """Ask `num` questions. With `kill`, kill the command at half of them and start it again."""
        options = self.options
        settings = {"slots": options.slots, "latency_s": options.latency, "sigma": options.sigma, **settings}
        num -= num % len(VIEWS)
        with tempfile.TemporaryDirectory(dir=self.folder) as name, Loopback(model=MODEL, **settings) as server:
            folder, chosen = Path(name), self.tasks[:num]
            tasks, pictures, output = folder / "tasks.jsonl", folder / "pictures", folder / "output"
            tasks.write_text("".join(f"{json.dumps(task)}\n" for task in chosen), "utf-8")
            pictures.mkdir()
            for path in {task["path"] for task in chosen}:
                os.link(path, pictures / Path(path).name)
            command = self.command(contender, tasks, output, pictures, server.url, num)
            log = self.options.logs / f"{contender.name.strip('`')}.log" if self.options.logs else folder / "log"
            killed_s = execute(command, log, server, num // 2)[1] if kill else 0.0
            status, cpu_s = execute(command, log, server)
            rows = compare(contender, output, self.expected, chosen) if contender.client != "bare" else Counter()
            return Result(status, killed_s + cpu_s, server.stats(), rows)


def pictures(count: int) -> Iterator[tuple[str, bytes]]:
    """Names and bytes of `count` JPEGs that fit the budget and are all different: copies lose columns of pixels."""
    photos, _ = originals()
    for number in range(count):
        copy, index = divmod(number, len(photos))
        image = Image.open(io.BytesIO(photos[index])).convert("RGB")
        stream = io.BytesIO()
        image.crop((0, 0, image.width - copy, image.height)).save(stream, "JPEG", quality=JPEG_QUALITY)
        stream.seek(0)
        yield f"picture-{number:06d}.jpg", jpegs(stream, "image", max_pixels=MAX_PIXELS, count=1)[0][0]


def execute(command: list[Any], log: Path, server: Loopback, kill_at: int = 0) -> tuple[int, float]:
    """Run a command to its end, or kill it when the server has answered `kill_at` requests.

    Returns:
        Its exit status and the CPU seconds of all its processes.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("LECCR_", "PYTHONPATH"))}
    environment |= {"HF_HUB_OFFLINE": "1", "RAY_USAGE_STATS_ENABLED": "0", "OPENAI_API_KEY": "EMPTY"}
    launched = [sys.executable, "-I", "-S", "-c", LAUNCHER, *map(str, command)]
    with log.open("ab") as stream:
        process = subprocess.Popen(
            launched, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT
        )
        began_s, cpu_s = time.monotonic(), {}
        while process.poll() is None:
            cpu_s |= cpu_seconds(process.pid)
            if (kill_at and server.stats()["answered"] >= kill_at) or time.monotonic() - began_s > LIMIT_S:
                process.terminate()  # the launcher kills what it started
                process.wait()
            time.sleep(0.1)
    status, _, accounted_s, _ = json.loads(log.read_bytes().rstrip().rpartition(b"\n")[2])
    return status, max(accounted_s, sum(cpu_s.values()))


def cpu_seconds(root: int) -> dict[int, float]:
    """CPU seconds of a process and its descendants so far. Ray's are accounted to nobody once they have ended."""
    seconds = {}
    with contextlib.suppress(psutil.NoSuchProcess):
        for process in [psutil.Process(root), *psutil.Process(root).children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                seconds[process.pid] = times.user + times.system
    return seconds


def compare(contender: Contender, output: Path, expected: dict[str, str], tasks: list[dict[str, Any]]) -> Counter[str]:
    """Count the rows of an output that are right, wrong, doubled or lost."""
    rows: list[tuple[str, Any]] = []
    if contender.client == "stage":
        with contextlib.suppress(Exception):  # a run that failed has no table
            rows = [(f"{row['item_id']}/{row['view']}", row["text"]) for row in Table(output, "descriptions").rows()]
    else:
        for path in output.glob("*.json*"):
            for line in path.read_bytes().splitlines():
                with contextlib.suppress(ValueError, KeyError):  # the end of a file that a kill has cut
                    row = json.loads(line)
                    rows.append((row["id"], row["text"]))
    texts = dict(rows)
    counts = Counter(
        "lost" if not texts.get(task["id"]) else "right" if texts[task["id"]] == expected[task["id"]] else "wrong"
        for task in tasks
    )
    counts["doubled"] = len(rows) - len(texts)
    return counts


def paid_twice(stats: dict[str, Any]) -> tuple[int, int]:
    """Answers beyond the first to one request, and requests beyond the first."""
    tallies = stats["seen"].values()
    return sum(max(answered - 1, 0) for _, answered in tallies), sum(asked - 1 for asked, _ in tallies)


@dataclasses.dataclass
class Measures:
    """What was measured of one contender."""

    throughput: list[Result] = dataclasses.field(default_factory=list)
    start: Result | None = None  # of one picture: what a command costs whatever its size
    faulty: Result | None = None
    killed: Result | None = None


def line(contender: Contender, version: str, measures: Measures, ceilings: list[float], options: Any) -> str:
    """A row of the table."""
    runs = measures.throughput
    shares = [run.rate / ceiling for run, ceiling in zip(runs, ceilings, strict=True)]
    cpu_s = [run.cpu_s / options.requests * 1_000 for run in runs]
    done = all(not run.status and run.stats["answered"] >= options.requests for run in runs)
    rate = f"{spread([run.rate for run in runs], 1)} | {spread(shares)}" if done else "failed | failed"
    cells = [contender.name, version, f"{rate} | {spread(cpu_s, 1)}"]
    if measures.start and measures.faulty and measures.killed:
        answers, requests = paid_twice(measures.killed.stats)
        cells += [f"{measures.start.cpu_s:.1f}", measures.faulty.summary(), measures.killed.summary()]
        cells += [f"{answers:,} ({requests:,})"]
    else:
        cells += [""] * 4
    return f"| {' | '.join(cells)} |"


def options_of(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--environments", type=Path, help="folder for the peers' environments, kept (default: a temporary one)")
    add("--only", nargs="+", help="peers by the beginning of their name or their client's (default: all)")
    add("--requests", type=int, default=3_000, help="requests of a throughput run, five a picture (default: 3000)")
    add("--faulty", type=int, default=300, help="requests of the run with faults (default: 300); 0: throughput only")
    add("--killed", type=int, default=1_000, help="requests of the run that is killed at half (default: 1000)")
    add("--rounds", type=int, default=1, help="throughput runs of each contender, in turn (default: 1)")
    add("--slots", type=int, default=64, help="requests that the server works on at once (default: 64)")
    add("--latency", type=float, default=0.5, help="median seconds of a request in a slot (default: 0.5)")
    add("--sigma", type=float, default=0.6, help="of the log-normal latency (default: 0.6)")
    add("--window", type=int, default=80, help="requests in flight (default: 80)")
    add("--logs", type=Path, help="folder for what the contenders print")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    options = options_of(argv)
    chosen = [
        peer
        for peer in PEERS
        if not options.only or any(peer.name.startswith(name) or peer.client == name for name in options.only)
    ]
    slot_s = options.latency * math.exp(options.sigma**2 / 2)
    server = f"{options.slots} slots, latency log-normal, median {options.latency:g} s, sigma {options.sigma:g}"
    print(f"{machine()}\nserver: {server}: never more than {options.slots / slot_s:,.0f} requests/s")
    if options.logs:
        options.logs.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-peers-") as folder:
        arena = Arena(Path(folder), options.environments or Path(folder) / "environments", options)
        versions = {BARE: "", STAGE: ""}
        for peer in chosen:
            try:
                versions[peer] = arena.install(peer)
            except RuntimeError as error:
                print(f"{peer.name} cannot be installed: {error}", flush=True)
        measures = {contender: Measures() for contender in versions}
        for _ in range(options.rounds):
            for contender, measured in measures.items():
                run = arena.run(contender, options.requests, digest=False)
                measured.throughput.append(run)
                load = os.getloadavg()[0]
                print(
                    f"  {contender.name}: {run.rate:.1f} requests/s, CPU {run.cpu_s:.1f} s, load {load:.1f}", flush=True
                )
        for contender, measured in list(measures.items())[1:] if options.faulty and options.killed else ():
            measured.start = arena.run(contender, len(VIEWS), digest=False)
            measured.faulty = arena.run(contender, options.faulty, fault_rate=0.1, faults=FAULTS)
            measured.killed = arena.run(contender, options.killed, kill=True)
            print(f"  {contender.name}: {measured.faulty.summary()}; {measured.killed.summary()}", flush=True)
    ceilings = [run.rate for run in measures[BARE].throughput]
    print(f"\n{options.requests:,} requests, {options.window} in flight; faults: {options.faulty:,}; ", end="")
    print(f"killed: {options.killed:,}; median (least to greatest) of {options.rounds}; {machine()}\n")
    print(
        "| | version | requests/s at the server | of the bare client | CPU s per 1,000 | CPU s of one picture "
        "| right with faults | right after a kill | answered twice (asked twice) |\n| --- | --- |" + " ---: |" * 7
    )
    for contender, measured in measures.items():
        print(line(contender, versions[contender], measured, ceilings, options))

    def share(contender: Contender) -> float:
        runs = measures[contender].throughput
        return statistics.median(run.rate / ceiling for run, ceiling in zip(runs, ceilings, strict=True))

    best = max(list(measures)[2:], key=share, default=None)
    rest = f"{best.name} {share(best):.2f}" if best else "not measured"
    print(f"peers: ours {share(STAGE):.2f} of the ceiling, best peer {rest}")


if __name__ == "__main__":
    main()

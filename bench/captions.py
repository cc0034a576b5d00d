"""Does the stage keep a server busy? Its throughput and CPU next to a bare client's and Beam's own RunInference.

    python bench/captions.py                                   64 slots, log-normal latency of median 0.5 s, sigma 0.6
    python bench/captions.py --slots 512 --latency 0.2         a server that is twenty times as fast
    python bench/captions.py --connections                     what one connection per request costs, plain and TLS
    python bench/captions.py --url http://127.0.0.1:8000 --model NAME --requests 100    a real server

Each contender is a process of its own and meets a fresh loopback server, whose latencies are drawn by the order of
arrival: the n-th request of every contender waits the same. The photos are real and each has bytes of its own.
"""

import argparse
import contextlib
import dataclasses
import importlib.util
import io
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from PIL import Image

from bench.common import DATA, Measured, commented, machine, measured, spread, stage
from pipeline.captioning.prompts import BUILT_IN
from tests.loopback import Loopback

PHOTOS = DATA / "coco_cc_by" / "images"
BATCHES = (16, 64, 256)
BATCHES_MEASURED = 20  # of RunInference: its rate is steady by then, and 3,000 requests in sixteens take minutes


@dataclasses.dataclass(frozen=True)
class Contended:
    """One contender's run: requests per second at the server, its own report, its process."""

    rate: float
    report: dict[str, Any]
    process: Measured

    @property
    def whole_rate(self) -> float:
        return self.report["requests"] / self.process.wall_s


def originals() -> tuple[list[bytes], str]:
    """JPEGs of photos, and where they are from."""
    if PHOTOS.is_dir():
        return [path.read_bytes() for path in sorted(PHOTOS.glob("*.jpg"))], "COCO photos"
    return list(_samples()), "sample photos of scikit-image and scikit-learn, as JPEG"


def make_photos(folder: Path, count: int) -> str:
    """Write `count` JPEGs of distinct bytes; returns a line about their origin."""
    photos, origin = originals()
    folder.mkdir()
    for number in range(count):
        jpeg = commented(photos[number % len(photos)], f"photo {number}")
        (folder / f"photo-{number:06d}.jpg").write_bytes(jpeg)
    sizes = [Image.open(io.BytesIO(jpeg)).size for jpeg in photos]
    area = statistics.median(width * height for width, height in sizes)
    return f"{count:,} JPEGs from {len(photos)} {origin}, median {area / 1e6:.2f} megapixels"


def _samples() -> Iterator[bytes]:
    from pipeline.sources import open_source

    for item in open_source(None).items():
        stream = io.BytesIO()
        Image.open(item.uri).convert("RGB").save(stream, "JPEG", quality=90)
        yield stream.getvalue()


class Arena:
    """Where contenders meet the server: photos, corpora ingested beforehand, a fresh server for each."""

    def __init__(self, folder: Path, options: argparse.Namespace):
        self.folder, self.options = folder, options
        self.photos = folder / "photos"
        self.items = math.ceil(options.requests / len(BUILT_IN))
        print(f"photos: {make_photos(self.photos, self.items)}", flush=True)
        for name, limit in (("ingested", 0), ("one", 1)):
            stage("ingest", folder / name, "--input", self.photos, "--limit", limit)

    @contextlib.contextmanager
    def server(self, **more: Any) -> Iterator[tuple[str, Loopback | None]]:
        options = self.options
        if options.url:
            yield options.url.rstrip("/").removesuffix("/v1"), None
            return
        settings = {"slots": options.slots, "latency_s": options.latency, "sigma": options.sigma}
        with Loopback(model=options.model, digest=False, **settings, **more) as server:
            yield server.url, server

    def run(self, contender: str, requests: int, settings: dict[str, Any] | None = None, **more: Any) -> Contended:
        options = self.options
        program = [sys.executable, "-c", "from bench.contenders import main; main()", contender, self.photos]
        common = {"model": options.model, "requests": requests, "window": options.window}
        with self.server(**settings or {}) as (url, server):
            given = {"url": url, **common, "max-pixels": options.max_pixels, **more}
            process = measured([*program, *(f"--{name}={value}" for name, value in given.items())])
            report = json.loads(process.output.strip().splitlines()[-1])
            rate = report["requests"] / report["seconds"]
            if server:
                stats = server.stats()
                if stats["answered"] != report["requests"]:
                    raise SystemExit(f"{contender}: the server answered {stats['answered']} of {report['requests']}")
                rate, report["server_cpu_s"] = stats["per_second"], stats["cpu_s"]
                report["connections"] = stats["connections"]
        return Contended(rate, report, process)

    def stage(self, ingested: str, requests: int) -> Contended:
        corpus = self.folder / "corpus"
        shutil.copytree(self.folder / ingested, corpus)
        try:
            return self.run("stage", requests, corpus=corpus)
        finally:
            shutil.rmtree(corpus)


def throughput(name: str, runs: list[Contended]) -> None:
    rates, whole = [run.rate for run in runs], [run.whole_rate for run in runs]
    seconds, cpu = [run.report["seconds"] for run in runs], [run.process.cpu_s for run in runs]
    print(f"{name:<26}{spread(rates, 1):>25}{spread(whole, 1):>25}{spread(seconds, 1):>22}{spread(cpu, 1):>22}")


def peer(arena: Arena, size: int, ready: int = 0) -> Contended:
    requests = min(arena.options.requests, BATCHES_MEASURED * size)
    run = arena.run("beam", requests, batch=size, ready=ready)
    throughput(f"RunInference, batch {size}", [run])
    if requests < arena.options.requests:
        print(f"  (its rate over {BATCHES_MEASURED} batches, {requests:,} requests)")
    if ready:
        print("  (with payloads made before its clock starts, which the stage does not have: not in the ratio)")
    return run


def cpu_table(bare: list[Contended], stages: list[Contended], one: list[Contended], items: int) -> None:
    """CPU seconds per 1,000 images of five views: of the whole command, and of what grows with the images."""

    def median(runs: list[Contended], name: str) -> float:
        return statistics.median(run.report[name] for run in runs)

    whole = statistics.median(run.process.cpu_s for run in stages)
    whole_of_one = statistics.median(run.process.cpu_s for run in one)
    beam, beam_of_one = median(stages, "beam_cpu_s"), median(one, "beam_cpu_s")
    asking, pillow = median(bare, "asking_cpu_s"), median(bare, "pillow_cpu_s")
    thousand, least = 1_000 / items, asking + pillow
    print("\nCPU seconds per 1,000 images of five views (the server's own are not among them)")
    parts = (
        f"bare client {asking * thousand:.1f} + one Pillow decode, resize and encode an image {pillow * thousand:.1f}"
    )
    print(f"  {parts} = {least * thousand:.1f}")
    for name, seconds in (
        ("the stage, the whole command", whole),
        ("the stage, less a command of one image", whole - whole_of_one),
        ("Beam's part of it, start to end", beam),
        ("Beam's part, less that of one image", beam - beam_of_one),
    ):
        print(f"  {name:<42}{seconds * thousand:7.1f}   ratio {seconds / least:.2f}")
    fixed = f"a command of one image {whole_of_one:.1f} s, of which Beam's part {beam_of_one:.1f}"
    print(f"  once a command, whatever its size: {fixed}; card and contact sheet of more images some more")
    if "server_cpu_s" in bare[0].report:
        all_s = least + median(bare, "server_cpu_s")
        limit = (os.cpu_count() or 1) * bare[0].report["requests"] / all_s
        print(f"  least and the loopback server's own together: these processors allow {limit:,.0f} requests/s at most")
    print(f"describing / least, by what grows with the images: {(beam - beam_of_one) / least:.2f} (target: <= 1.5)")


def connections(arena: Arena) -> None:
    """The chat client with servers that repeat request ids and with others, plain and with TLS, in turn."""
    certificate = arena.folder / "certificate.pem"
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1 -keyout -"
    )
    certificate.write_bytes(subprocess.run(command.split(), check=True, capture_output=True).stdout)
    os.environ["SSL_CERT_FILE"] = str(certificate)
    kinds = {(tls, echo): [] for tls in ("plain", "TLS") for echo in (True, False)}
    for _ in range(arena.options.repeats):
        for (tls, echo), runs in kinds.items():
            settings = {"echo": echo, "certificate": str(certificate) if tls == "TLS" else ""}
            runs.append(arena.run("client", arena.options.requests, settings))
    print(f"\n{'median (least to greatest)':<34}{'connections':>12}{'at the server/s':>25}", end="")
    print(f"{'ms of CPU a request':>25}{'and of the server':>25}")
    for (tls, echo), runs in kinds.items():
        name = f"{tls}, {'kept alive' if echo else 'one connection per request'}"
        cpu_ms = (
            spread([1_000 * run.report[part] / run.report["requests"] for run in runs], 2)
            for part in ("asking_cpu_s", "server_cpu_s")
        )
        print(f"{name:<34}{runs[0].report['connections']:>12,}{spread([run.rate for run in runs], 1):>25}", end="")
        print("".join(f"{part:>25}" for part in cpu_ms))


def options_of(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--requests", type=int, default=3_000, help="requests a run, five an image (default: 3000)")
    add("--slots", type=int, default=64, help="requests that the server works on at once (default: 64)")
    add("--latency", type=float, default=0.5, help="median seconds of a request in a slot (default: 0.5)")
    add("--sigma", type=float, default=0.6, help="of the log-normal latency (default: 0.6)")
    add("--window", type=int, default=0, help="requests in flight (default: the slots and a quarter more)")
    add("--max-pixels", type=int, default=768 * 768, help="budget to which photos are shrunk (default: 589824)")
    add("--repeats", type=int, default=3, help="runs of the bare client and of the stage, in turn (default: 3)")
    add("--skip-beam", action="store_true", help="leave RunInference out, which takes the most time")
    add("--connections", action="store_true", help="measure connections only")
    add("--url", default="", help="a real server instead of the loopback one; --slots and --latency mean nothing then")
    add("--model", default="loopback", help="the model that --url serves")
    options = parser.parse_args(argv)
    if not (options.skip_beam or options.connections) and importlib.util.find_spec("openai") is None:
        parser.error("RunInference needs the openai package: pip install openai, or give --skip-beam")
    if options.requests < len(BUILT_IN):
        parser.error(f"--requests: got {options.requests}, expected at least {len(BUILT_IN)}, the views of one image")
    options.requests -= options.requests % len(BUILT_IN)
    options.window = options.window or options.slots + options.slots // 4
    return options


def main(argv: list[str] | None = None) -> None:
    options = options_of(argv)
    slot_s = options.latency * math.exp(options.sigma**2 / 2)
    print(machine())
    print(
        f"server: {options.model} at {options.url}; a pass over all requests warms its caches first"
        if options.url
        else f"server: loopback, {options.slots} slots, latency log-normal, median {options.latency:g} s, sigma "
        f"{options.sigma:g}: never more than {options.slots / slot_s:,.0f} requests/s"
    )
    with tempfile.TemporaryDirectory(prefix="bench-captions-") as folder:
        arena = Arena(Path(folder), options)
        if options.connections:
            connections(arena)
            return
        if options.url:
            arena.run("bare", options.requests)
        bare, stages, one = [], [], []
        for _ in range(options.repeats):
            bare.append(arena.run("bare", options.requests))
            stages.append(arena.stage("ingested", options.requests))
            one.append(arena.stage("one", len(BUILT_IN)))
        print(f"requests: {options.requests:,} of {bare[0].report['body_kib']:.0f} KiB, {options.window} in flight\n")
        measures = f"{'at the server/s':>25}{'whole command/s':>25}{'seconds asking':>22}{'CPU s':>22}"
        print(f"{'median (least to greatest)':<26}{measures}")
        throughput("bare aiohttp client", bare)
        throughput("the stage", stages)
        peers = {size: peer(arena, size) for size in ([] if options.skip_beam else BATCHES)}
        if peers:
            best = max(peers, key=lambda size: peers[size].rate)
            peer(arena, best, ready=1)
    explain(options)
    cpu_table(bare, stages, one, arena.items)
    verdict(bare, stages, peers)


def explain(options: argparse.Namespace) -> None:
    clock = "from Beam's start to its end" if options.url else "from the first request that it saw to its last answer"
    print(f"\nat the server: requests / time {clock}.")
    print("whole command: requests / time of the process, with interpreter, imports, Beam's start, card and contact")
    print("sheet; of the bare client and of RunInference, also with the making of their payloads.")
    print("seconds asking: as the client sees it; of the stage and of RunInference, the time of their Beam pipeline.")


def verdict(bare: list[Contended], stages: list[Contended], peers: dict[int, Contended]) -> None:
    paired = list(zip(stages, bare, strict=True))
    at_server = [ours.rate / ceiling.rate for ours, ceiling in paired]
    in_beam = [ours.report["requests"] / ours.report["seconds"] / ceiling.rate for ours, ceiling in paired]
    whole = [ours.whole_rate / ceiling.rate for ours, ceiling in paired]
    print("\nthe stage / the bare client at the server, run by run")
    print(f"  at the server             {spread(at_server, 3)} (target: >= 0.95)")
    print(f"  over Beam's part          {spread(in_beam, 3)}")
    print(f"  over the whole command    {spread(whole, 3)}")
    ratio = "not measured"
    if peers:
        best = max(peers, key=lambda size: peers[size].rate)
        ratio = f"{statistics.median(run.rate for run in stages) / peers[best].rate:.1f}"
        print(f"stage / RunInference at its best batch size, {best}: {ratio} (target: >= 2.3)")
    print(machine())
    print(f"captions: {statistics.median(at_server):.2f} of ceiling, {ratio} x beam RunInference")


if __name__ == "__main__":
    main()

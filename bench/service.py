"""Search as a service against its bare engine, in one run: 50 clients of the one, 50 threads that call the other.

    python bench/service.py                     2,000 pictures, 50 clients
    python bench/service.py --items 200 --clients 8 --seconds 2 --rounds 1     to see that it runs

The corpus is of scenes, indexed with `--checkpoint embedded`; queries are its captions in four languages, each client's
own, and each is asked when the one before is answered. The service is a process of its own as users start it, asked
over HTTP by clients in another. Of the engine there are two measures: `threads` call it at the same time, a query each,
as a server that does not batch would; `batches` are 64 queries a call from one thread, the most that it gives. They
take turns. Clients, service and engine share the machine's processors.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from bench.common import ROOT, machine, measured, spread
from pipeline.sources.scenes.corpus import Settings, write_corpus
from stages.data.samples import Shards
from stages.retrieval.engine import Index
from stages.web.problems import MAX_QUERIES

K = 10
Ask = Callable[[str], None]


def captions(corpus: Path) -> list[str]:
    """Of every item, in every language, so that neighbours differ in language."""
    shards, captions = Shards([corpus]), []
    for number in range(len(shards)):
        for texts in shards.shard(number).column("captions").to_pylist():
            captions += [text["text"] for text in texts]
    return [str(text) for text in np.random.default_rng(0).permutation(sorted(set(captions)))]


def latencies(clients: int, seconds: float, queries: Sequence[str], ask: Ask) -> list[float]:
    """Of all calls of as many threads, each of which asks again when it has its answer."""
    durations: list[list[float]] = [[] for _ in range(clients)]
    ends = time.perf_counter() + seconds

    def client(number: int) -> None:
        for query in itertools.cycle(queries[number::clients]):
            began = time.perf_counter()
            if began >= ends:
                return
            ask(query)
            durations[number].append(time.perf_counter() - began)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return list(itertools.chain.from_iterable(durations))


def batches(seconds: float, queries: Sequence[str], finder: Index) -> float:
    """Queries a second."""
    size, count, began = MAX_QUERIES, 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        finder.find([queries[(count + place) % len(queries)] for place in range(size)], K)
        count += size
    return count / (time.perf_counter() - began)


async def requests(url: str, clients: int, seconds: float, queries: Sequence[str]) -> list[float]:
    """Of all requests of as many clients, each on a connection of its own."""
    import aiohttp

    durations: list[float] = []
    ends = time.perf_counter() + seconds

    async def client(session: aiohttp.ClientSession, mine: Sequence[str]) -> None:
        for query in itertools.cycle(mine):
            began = time.perf_counter()
            if began >= ends:
                return
            async with session.post(f"{url}/search", json={"query": query, "k": K}) as answer:
                body = await answer.json()
                if answer.status != 200 or len(body["results"][0]) != K:
                    raise SystemExit(f"got {answer.status} {body}, expected {K} results")
            durations.append(time.perf_counter() - began)

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=clients)) as session:
        await asyncio.gather(*(client(session, queries[number::clients]) for number in range(clients)))
    return durations


@contextlib.contextmanager
def serving(index: Path) -> Iterator[str]:
    """The address of a service of this index."""
    command = [sys.executable, "stages/serve.py", "--index", str(index), "--port", "0", "--rate", "1e6"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as service:
        assert service.stderr is not None
        lines = []
        for line in service.stderr:
            lines.append(line)
            if match := re.search(r"(http://\S+)/docs", line):
                break
        else:
            raise SystemExit(f"the service did not start: {''.join(lines)}")
        try:
            yield match[1]
        finally:
            service.terminate()


def compare(folder: Path, options: argparse.Namespace) -> None:
    corpus, index, asked = folder / "scenes", folder / "index", folder / "queries.json"
    write_corpus(corpus, Settings(items=options.items, val=0, test=0))
    measured([sys.executable, "stages/index.py", "--checkpoint", "embedded", "--data", corpus, "--output", index])
    queries, finder = captions(corpus), Index.open(index)
    asked.write_text(json.dumps(queries), encoding="utf-8")
    finder.find(queries[:64], K)
    print(machine())
    print(f"{len(finder):,} items, {len(queries):,} queries, {options.clients} at once, {K} results each\n")
    rates: dict[str, list[float]] = {"service": [], "threads": [], "batches": []}
    slowest: dict[str, list[float]] = {"service": [], "threads": []}
    with serving(index) as url:
        client = [sys.executable, __file__, "--url", url, "--queries", asked, "--clients", options.clients]
        for _ in range(options.rounds):
            served = json.loads(measured([*client, "--seconds", options.seconds]).output.splitlines()[-1])
            called = latencies(
                options.clients, options.seconds, queries, lambda query: finder.find([query], K) and None
            )
            for name, durations in (("service", served), ("threads", called)):
                rates[name].append(len(durations) / options.seconds)
                slowest[name].append(1_000 * float(np.percentile(durations, 99)))
            rates["batches"].append(batches(options.seconds, queries, finder))
    print(f"{'':<20}{'queries/s':>26}{'p99, ms':>26}")
    for name, label in {"service": "service", "threads": "engine, threads", "batches": "engine, batches"}.items():
        print(f"{label:<20}{spread(rates[name], 0):>26}{spread(slowest.get(name, [])) if name in slowest else '':>26}")
    print()
    for measure, other in ((rates, "threads"), (rates, "batches"), (slowest, "threads")):
        ratios = [one / two for one, two in zip(measure["service"], measure[other], strict=True)]
        what = "p99" if measure is slowest else "queries/s"
        print(f"{what}, service / engine, {other}: {statistics.median(ratios):.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=2_000, help="pictures in the index (2000)")
    parser.add_argument("--clients", type=int, default=50, help="at once (50)")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measure (10)")
    parser.add_argument("--rounds", type=int, default=3, help="in which they take turns (3)")
    parser.add_argument("--url", help=argparse.SUPPRESS)
    parser.add_argument("--queries", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.url:
        queries = json.loads(options.queries.read_text(encoding="utf-8"))
        print(json.dumps(asyncio.run(requests(options.url, options.clients, options.seconds, queries))))
        return
    with tempfile.TemporaryDirectory() as name:
        compare(Path(name), options)


if __name__ == "__main__":
    main()

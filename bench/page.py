"""The search page in Chromium next to the bare engine, in one run: first results, and scrolling to the thousandth.

    python bench/page.py                          10,000 items: the photographs next to the project, repeated
    python bench/page.py PHOTOS --items 200 --queries 3     to see that it runs

A folder of photographs is indexed with `--checkpoint embedded`; each item is then repeated with noise on its vectors,
until there are as many as asked for, each with its own row, picture and texts. Queries are descriptions, all different
and each in all measures, one after the other: `engine` calls `Index.find`, `over HTTP` gets the page with its first 48
results; `in Chromium` is from the start of the navigation until the results are there, `with pictures` until those on
the screen are. Then a mouse wheel scrolls by a fifth of the window every tenth of a second: two screens a second.
Server and browser share the machine's processors; without a GPU, Chromium draws on them too.
"""

import argparse
import statistics
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import quote

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import pyarrow as pa
from playwright.sync_api import Page, ViewportSize, sync_playwright

from bench.common import DATA, machine, measured, stage
from bench.service import serving
from pipeline.corpus.table import Table, manifest_hash, shard_name, write_manifest, write_shard
from stages.retrieval.engine import Index
from stages.retrieval.index_reader import Generation
from stages.retrieval.index_writer import Block, index_writer

CHROMIUM = "/usr/bin/chromium"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
SIZE = ViewportSize(width=1440, height=900)
SHOWN = "[...document.querySelectorAll('#results img')].filter(i => i.getBoundingClientRect().top < innerHeight)"
FRAMES = """
window.gaps = []; let last = performance.now();
requestAnimationFrame(function tick(now) { gaps.push(now - last); last = now; requestAnimationFrame(tick); })
"""


def repeat(small: Path, few: Path, corpus: Path, folder: Path, count: int) -> None:
    """Write a corpus and an index of this many items, copies of those of a small one."""
    training, index = Table(small, "training"), Generation.open(few)
    rows = pa.concat_tables(training.shard(number) for number in range(training.num_shards))
    copies = -(-count // len(rows))
    (corpus / "training").mkdir(parents=True)
    entries, names = [], [f"{copy:03}-" for copy in range(copies)]
    for number, name in enumerate(names):
        ids = pa.array([name + item for item in rows["item_id"].to_pylist()])
        part = rows.set_column(0, rows.schema.field(0), ids.cast(rows.schema.field(0).type))
        entries.append(write_shard(corpus / "training" / shard_name(number, copies), part))
    settings = training.manifest["settings"]
    write_manifest(
        corpus, "training", settings=settings, fingerprint="", tools={}, parents={}, shards=entries, failures=[]
    )
    items, generator = slice(0, len(index)), np.random.default_rng(0)
    rows_RE = {part: index.vectors.rows(items, part=part) for part in ("media", "text")}
    counts = {part: index.vectors.parts[part].counts_N for part in rows_RE}

    def block(name: str) -> Block:
        records = index.items.to_pylist()
        renamed = [{**record, "item_id": name + record["item_id"], "corpus": corpus.name} for record in records]
        noisy = {
            part: rows + np.float32(0.01) * generator.standard_normal(rows.shape, np.float32)
            for part, rows in rows_RE.items()
        }
        return Block(pa.Table.from_pylist(renamed, index.items.schema), counts, noisy)

    blocks = [block(name) for name in names]
    entry = {"name": corpus.name, "path": str(corpus), "training": manifest_hash(corpus, "training")}
    origin = {**index.origin, "corpora": [entry]}
    with index_writer(folder, origin=origin, width=rows_RE["media"].shape[1], dtype="float16", kind="auto") as writer:
        writer.publish(lambda: blocks)


def in_chromium(page: Page, url: str, query: str) -> tuple[float, float]:
    """Milliseconds until the first results, and until their pictures."""
    page.goto("about:blank")
    page.goto(f"{url}/?q={quote(query)}", wait_until="domcontentloaded")
    page.wait_for_function(f"{SHOWN}.length && {SHOWN}.every(image => image.complete)", polling="raf")
    first: float = page.evaluate("performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd")
    pictures: float = page.evaluate("performance.now()")
    return first, pictures


def scroll(page: Page, url: str, query: str, last: int) -> dict[str, Any]:
    """Scroll to a result; what was missing on the way."""
    page.goto(f"{url}/?q={quote(query)}")
    page.evaluate(FRAMES)
    page.mouse.move(700, 500)
    began, steps, ends, blank = time.perf_counter(), 0, 0, 0
    while True:
        page.mouse.wheel(0, SIZE["height"] / 5)
        page.wait_for_timeout(100)
        steps += 1
        more = page.locator("#more")
        is_end = page.evaluate("scrollY + innerHeight > document.documentElement.scrollHeight - 100")
        ends += bool(is_end and more.count())
        blank += page.evaluate(f"{SHOWN}.filter(i => i.getBoundingClientRect().bottom > 0 && !i.complete).length")
        if is_end and page.locator(f"#result-{last}").count():
            break
    gaps = page.evaluate("gaps")
    return {
        "seconds": time.perf_counter() - began,
        "steps": steps,
        "steps at the end of the results": ends,
        "pictures still missing, per step": blank / steps,
        "longest frame, ms": max(gaps),
        "median frame, ms": statistics.median(gaps),
    }


def summary(values: list[float]) -> str:
    """Median, 95th percentile and most."""
    return "".join(f"{value:10.1f}" for value in (*np.percentile(values, [50, 95]), max(values)))


def compare(folder: Path, options: argparse.Namespace) -> None:
    small, few, corpus, index = (folder / name for name in ("small", "few", "photos", "index"))
    stage("captions", small, "--input", options.photos, "--captioner", "embedded")
    stage("pack", small)
    measured([sys.executable, "stages/index.py", "--checkpoint", "embedded", "--data", small, "--output", few])
    repeat(small, few, corpus, index, options.items)
    finder = Index.open(index)
    queries = [*dict.fromkeys(hit.text for hit in finder.search("a photograph", 1_000))][: options.queries + 1]
    print(machine())
    print(f"{len(finder):,} items, {len(queries) - 1} queries, window {SIZE['width']} x {SIZE['height']}\n")
    times: dict[str, list[float]] = {name: [] for name in ("engine", "over HTTP", "in Chromium", "with pictures")}
    with serving(index) as url, sync_playwright() as playwright:
        page = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS).new_page(viewport=SIZE, bypass_csp=True)
        for number, query in enumerate(queries):
            began = time.perf_counter()
            finder.find([query], 48)
            found = time.perf_counter()
            urllib.request.urlopen(f"{url}/?q={quote(query)}").read()
            got = time.perf_counter()
            values = (1_000 * (found - began), 1_000 * (got - found), *in_chromium(page, url, query))
            if number:  # the first one warms up
                for name, value in zip(times, values, strict=True):
                    times[name].append(value)
        print(f"{'ms':<20}{'median':>10}{'95 %':>10}{'most':>10}")
        for name, durations in times.items():
            print(f"{name:<20}{summary(durations)}")
        print("\nscrolling to the last of " + f"{min(1_000, len(finder)):,} results")
        for name, value in scroll(page, url, queries[0], min(1_000, len(finder))).items():
            print(f"{name:<40}{value:10.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", nargs="?", type=Path, default=DATA / "coco_cc_by" / "images", help="a folder of them")
    parser.add_argument("--items", type=int, default=10_000, help="in the index (10000)")
    parser.add_argument("--queries", type=int, default=50, help="different ones (50)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        compare(Path(name), options)


if __name__ == "__main__":
    main()

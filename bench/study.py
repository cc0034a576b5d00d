"""Which part of the method earns what: runs on scenes over seeds, noise of translations and errors of descriptions.

    python bench/study.py            every run that is not there yet, two at a time; hours, in pieces as one likes
    python bench/study.py --quick    four runs of seconds in a folder of their own: that it works, not what it finds
    python bench/study.py --report   the page and its pictures from the runs that are there

A finished run is a line in `docs/study/runs.jsonl`; what stands there is not run again. Scores are SumR on the split
`test`, of weights that were chosen on `val`. Runs of one seed have the same corpus, initial weights where they have the
same layers, and order of items: differences are taken seed by seed.
"""

import argparse
import concurrent.futures
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import study_report
from bench.common import ROOT, machine
from pipeline.engine.progress import duration
from pipeline.hashing import canonical_json, short_hash

LANGUAGES = ("cs", "de", "zh")
PAPER = (  # the architecture and the weights of the paper, as small as the scenes are
    "heads=random", "slots=queries", "num_heads=4", "slot_layers=1", "interaction_layers=1", "init_temperature=.07",
    "local_weight=.01", "diversity_weight=.01", "distillation_weight=.5", "source_target_weight=1",
    "caption_vision_weight=.01", "caption_vision_temperature=1",
)  # fmt: skip
TWO_TOWERS = ("slots=none", "distillation_weight=0", "pair_weighting=no", "global_weights=1")
# one view is a caption too, the others are what slots read: what does both lets a model match a text with itself
VIEWS = ("extra_views=short", "slot_views=detail,objects,attributes,actions")
# each adds one part to the one before it
PARTS: dict[str, tuple[str, ...]] = {
    "two towers": TWO_TOWERS,
    "+ descriptions as captions": (*TWO_TOWERS, VIEWS[0]),
    "+ slots and interaction": (
        *VIEWS, "distillation_weight=0", "pair_weighting=no", "local_weight=0", "global_weights=1",
    ),
    "+ local matching": (*VIEWS, "distillation_weight=0", "pair_weighting=no"),
    "+ softened matching": (*VIEWS, "pair_weighting=no"),
    "+ quality weighting": VIEWS,
}  # fmt: skip
WHOLE: dict[str, tuple[str, ...]] = {
    "two towers": TWO_TOWERS,
    # one description an item, as released; chosen on val like the others: to choose on test is not the method's merit
    "faithful": ("method=faithful", "slot_views=detail", "select_on=val"),
    "corrected": (),
}
PARTS, WHOLE = ({name: (*PAPER, *arm) for name, arm in arms.items()} for arms in (PARTS, WHOLE))
BLIND = ("two towers",)  # to descriptions: a run at one level of their errors is that of all
ARMS = PARTS | WHOLE


@dataclasses.dataclass(frozen=True)
class Level:
    """How wrong the texts are: noise of translations, errors of descriptions, see `pipeline.sources.scenes`."""

    noise: float
    errors: float


NOISES, ERRORS = (0.1, 0.3, 0.6), (0.1, 0.4)
MIDDLE = Level(0.3, 0.1)


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is run: sizes in items, lengths in steps. Lines of another plan are not this one's."""

    seeds: int = 5
    items: int = 1000
    held_out: int = 300  # of val, and of test
    steps: int = 200
    batch: int = 128
    arms: tuple[str, ...] = tuple(ARMS)
    noises: tuple[float, ...] = NOISES
    errors: tuple[float, ...] = ERRORS
    overrides: tuple[str, ...] = ()  # of every arm

    def key(self) -> str:
        """Of what decides a run's score."""
        same = dataclasses.replace(self, seeds=0, arms=(), noises=(), errors=())
        return short_hash(canonical_json(dataclasses.asdict(same)))

    def describe(self) -> str:
        return (
            f"{self.items:,} training pictures, {self.held_out} each for validation and test, {self.steps} steps "
            f"of {self.batch}, captions in {', '.join(LANGUAGES)}; tiny towers from random weights"
        )

    def runs(self) -> Iterator["Run"]:
        """Seed by seed, the middle first: an unfinished study compares like with like."""
        others = [Level(noise, errors) for noise in self.noises for errors in self.errors]
        for seed in range(self.seeds):
            yield from (Run(arm, MIDDLE, seed) for arm in self.arms)
            whole = [arm for arm in self.arms if arm in WHOLE]
            yield from (
                Run(arm, level, seed)
                for level in others
                for arm in whole
                if level != MIDDLE and (arm not in BLIND or level.errors == MIDDLE.errors)
            )


QUICK = Plan(
    seeds=2, items=60, held_out=20, steps=4, batch=16, arms=("two towers", "corrected"), noises=(0.3,), errors=(0.1,)
)


@dataclasses.dataclass(frozen=True)
class Run:
    arm: str
    level: Level
    seed: int

    def name(self) -> str:
        return f"{self.arm}, noise {self.level.noise}, errors {self.level.errors}, seed {self.seed}"


def done(path: Path, plan: Plan) -> dict[Run, dict[str, Any]]:
    """The finished runs of the plan by what they were; a run of other settings under an arm's name is none of them."""
    if not path.is_file():
        return {}
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {
        Run(line["arm"], Level(line["noise"], line["errors"]), line["seed"]): line
        for line in lines
        if line["plan"] == plan.key() and line["settings"] == list(ARMS[line["arm"]])
    }


def at_every_error(lines: Sequence[dict[str, Any]], plan: Plan) -> list[dict[str, Any]]:
    """The lines, those of arms that see no descriptions at every level of errors."""
    return [
        {**line, "errors": errors}
        for line in lines
        for errors in (plan.errors if line["arm"] in BLIND else [line["errors"]])
    ]


def corpus_of(run: Run, plan: Plan, folder: Path) -> Path:
    from pipeline.sources.scenes.corpus import write_corpus
    from pipeline.sources.scenes.rows import Settings

    corpus = folder / f"scenes-{run.level.noise}-{run.level.errors}-{run.seed}"
    settings = Settings(
        items=plan.items,
        val=plan.held_out,
        test=plan.held_out,
        seed=run.seed,
        languages=LANGUAGES,
        translation_noise=run.level.noise,
        description_errors=run.level.errors,
    )
    write_corpus(corpus, settings)
    return corpus


def carry_out(run: Run, plan: Plan, corpus: Path, folder: Path) -> dict[str, Any]:
    """Trains and scores; the line of the run."""
    found = train_and_score(corpus, folder / short_hash(run.name()), ARMS[run.arm], plan, run.seed)
    return {
        "plan": plan.key(), "arm": run.arm, "noise": run.level.noise, "errors": run.level.errors, "seed": run.seed,
        "settings": list(ARMS[run.arm]), **found, "commit": commit(),
    }  # fmt: skip


def train_and_score(corpus: Path, output: Path, arm: Sequence[str], plan: Plan, seed: int) -> dict[str, Any]:
    """What is kept of a run; its folder is deleted."""
    began = time.monotonic()
    scores = output.with_suffix(".json")
    every = max(1, plan.steps // 4)
    lengths = (f"steps={plan.steps}", f"batch_size={plan.batch}", f"validate_every={every}", f"log_every={every}")
    program("stages/train.py", "--recipe", "scenes", "--data", corpus, "--output", output, "--overwrite",
            *arm, *plan.overrides, *lengths, f"seed={seed}")  # fmt: skip
    program("stages/score.py", "--checkpoint", output, "--data", corpus, "--split", "test",
            "--languages", ",".join(LANGUAGES), "--output", scores)  # fmt: skip
    found = json.loads(scores.read_text(encoding="utf-8"))
    shutil.rmtree(output)
    return {
        "sum_r": found["mean"]["sum_r"], "chance": found["mean"]["chance"]["sum_r"],
        "languages": {name: row["sum_r"] for name, row in found["languages"].items()},
        "selection": found["checkpoint"]["selection"], "seconds": round(time.monotonic() - began),
    }  # fmt: skip


def program(*arguments: object) -> None:
    """One thread each: two runs share two processors better than their threads would."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, arguments))} ended with {done.returncode}:\n{done.stderr[-3000:]}")


def commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--exclude", "*"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip() or "unknown"


def study(plan: Plan, lines: Path, scratch: Path, at_once: int) -> None:
    """Every run that is not in `lines` yet; each line is written when its run ends."""
    finished = done(lines, plan)
    left = [run for run in plan.runs() if run not in finished]
    print(f"{len(finished)} runs are there, {len(left)} to do, {at_once} at a time; {machine()}", flush=True)
    lines.parent.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(at_once) as pool, lines.open("a", encoding="utf-8") as stream:
        corpora = {run: corpus_of(run, plan, scratch) for run in left}
        waiting = {pool.submit(carry_out, run, plan, corpora[run], scratch): run for run in left}
        try:
            for number, future in enumerate(concurrent.futures.as_completed(waiting), 1):
                line = future.result()
                stream.write(f"{json.dumps(line, ensure_ascii=False)}\n")
                stream.flush()
                rest = (time.monotonic() - began) / number * (len(left) - number)
                print(f"{waiting[future].name()}: SumR {line['sum_r']:.1f} · ETA {duration(rest)}", flush=True)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="four runs of seconds: that it works, not what it finds")
    parser.add_argument("--report", action="store_true", help="run nothing, write the page from what is there")
    parser.add_argument("--output", type=Path, help="folder of runs, page and pictures (docs/study; --quick needs one)")
    parser.add_argument("--scratch", type=Path, help="folder for corpora and runs (one that is deleted at the end)")
    parser.add_argument("--at-once", type=int, default=2, help="runs at a time, a thread each (2)")
    options = parser.parse_args(argv)
    if options.quick and not options.output:
        parser.error("--quick needs --output FOLDER, so that its runs do not mix with those of the study")
    plan = QUICK if options.quick else Plan()
    output = options.output or ROOT / "docs" / "study"
    lines = output / "runs.jsonl"
    if not options.report:
        with tempfile.TemporaryDirectory() as temporary:
            study(plan, lines, options.scratch or Path(temporary), options.at_once)
    wanted = list(plan.runs())
    found = [line for run, line in done(lines, plan).items() if run in wanted]
    setup = f"{plan.describe()}. faithful reads one description per item, as released, and corrected reads five. "
    setup += f"{len(found)} of {len(wanted)} runs"
    middle, unfinished = (MIDDLE.noise, MIDDLE.errors), len(found) < len(wanted)
    study_report.write(output, at_every_error(found, plan), list(PARTS), list(WHOLE), middle, setup, unfinished)


if __name__ == "__main__":
    main()

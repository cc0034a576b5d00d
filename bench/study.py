"""Does LECCR earn its keep on scenes, where the noise of translations and the errors of descriptions are known?

    python bench/study.py            every run that is missing, then the page; an hour or two of one core, in pieces
    python bench/study.py --quick    a few runs of seconds in a folder of their own
    python bench/study.py --report   the page from the runs that are there

Every seed has pictures, texts, weights and an order of its own. A finished run is a line of OUTPUT/runs.jsonl and is
not repeated. Scores are the mean SumR over the languages on split test; settings are chosen on val at MIDDLE with the
first seed, as many for each arm.
"""

import argparse
import dataclasses
import math
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.arms import METHOD, SIMPLE, Arm, Bench, Line, Regime, Run, Scores, simple_rows
from bench.common import ROOT, machine, stage

LANGUAGES = ("cs", "de", "zh")
VIEWS = ("detail", "objects", "actions")
NOISE, ERRORS = 0.3, (0.4, 0.1)
FIRST_SEED = 100

TOWERS = ("slots=none",)
JOINT = ("read_views=no", "own_weight=0", "view_dropout=0")
SHORT, LONG = "steps=160", "steps=320"
DROPOUT, MORE_DROPOUT = "media_dropout=.2", "media_dropout=.4"
FIRST, ALL = "extra_views={first}", "extra_views={views}"  # descriptions as further captions
OWN = "own_weight=3"  # with few pictures, items without descriptions need more of it
GRID = ((SHORT, MORE_DROPOUT), (LONG, MORE_DROPOUT), (SHORT, DROPOUT))
METHOD_GRID = ((SHORT, MORE_DROPOUT), (LONG, MORE_DROPOUT), (SHORT, MORE_DROPOUT, OWN))
TOWERS_GRID = ((SHORT, MORE_DROPOUT, FIRST), (LONG, MORE_DROPOUT, FIRST), (LONG, MORE_DROPOUT, ALL))


def regime(errors: float) -> Regime:
    """The descriptions with these errors; a draw is a seed, and all draws have the same views."""
    return Regime(f"errors {errors:g}", (tuple(f"{view}-{errors:g}" for view in VIEWS),))


LEVELS = tuple(regime(errors) for errors in ERRORS)
MIDDLE = LEVELS[0]

MAIN = {
    METHOD: Arm((), {"corrected, no descriptions": "bare", METHOD: "fused"}, grid=METHOD_GRID),
    "towers on descriptions": Arm(
        TOWERS,
        {
            "two towers on descriptions": "global",
            "their descriptions only": "descriptions",
            "late fusion, best": "fused",
        },
        SIMPLE,
        TOWERS_GRID,
    ),
    "towers": Arm(TOWERS, {"two towers": "global", "late fusion": "fused"}, SIMPLE, GRID),
    "joint": Arm(JOINT, {"joint, descriptions only": "descriptions", "joint": "fused"}, grid=GRID),
}
CLAIMED = tuple(MAIN)[:2]  # compared at every level
BEST_FUSION, WITHOUT = "late fusion, best", "corrected, no descriptions"
ONLY_DESCRIPTIONS = ("descriptions only", "their descriptions only")
BEGIN, END = "<!-- tables of bench/study.py -->", "<!-- end of tables -->"
PARTS = {
    "without reading views": Arm(("read_views=no",), {"without reading views": "fused"}),
    "one view": Arm((), {"one view": "fused"}, views=MIDDLE.draws[0][:1]),
    "with softened matching": Arm(("distillation_weight=.5",), {"with softened matching": "fused"}),
    "without view dropout": Arm(
        ("view_dropout=0",), {"without view dropout, no descriptions": "bare", "without view dropout": "fused"}
    ),
    "without own loss": Arm(("own_weight=0",), {"without own loss": "fused"}),
    "without local loss": Arm(("local_weight=0",), {"without local loss": "fused"}),
    "equal trust": Arm(("trust=equal",), {"equal trust": "fused"}),
    "with caption–vision loss": Arm(("caption_vision_weight=.5",), {"with caption–vision loss": "fused"}),
    "without pair weights": Arm(("pair_weighting=no",), {"without pair weights": "fused"}),
}


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is run: sizes in items."""

    seeds: int = 5
    parts: bool = True
    items: int = 500
    held_out: int = 300  # of val, and of test
    tried: int = len(GRID)  # settings of each grid
    steps: int = 0  # of every run, in place of the grid's


QUICK = Plan(seeds=2, parts=False, items=60, held_out=20, tried=1, steps=4)


class Scenes(Bench):
    """The runs on scenes. A draw is a seed of the corpus.

    Args:
        output: Folder of the runs.
        scratch: Folder of the corpora.
        plan: What is run.
    """

    recipe, languages, validations, first_seed = "photos", LANGUAGES, 4, FIRST_SEED
    common = ("batch_size=128",)

    levels: tuple[Regime, ...] = LEVELS

    def __init__(self, output: Path, scratch: Path, plan: Plan):
        super().__init__(output, MAIN | PARTS, plan.tried, plan.steps)
        self.work, self.plan = scratch, plan
        scratch.mkdir(parents=True, exist_ok=True)

    def views(self, run: Run) -> tuple[str, ...]:
        """What the slots read: the same in every draw."""
        return self.arms[run.arm].views or run.regime.draws[0]

    def corpus(self, regime: Regime, draw: int) -> Path:
        """The corpus of a seed, which has the descriptions of every level as views."""
        return make_corpus(self.work, self.first_seed + draw, self.plan)

    def choose(self, regime: Regime, arm: str) -> tuple[str, ...]:
        """The setting that was best at the first level."""
        return super().choose(self.levels[0], arm)

    def study(self, seeds: Sequence[int], arms: Sequence[str]) -> None:
        """Carry out the plan, the claims first and seed by seed, so that a stopped study compares like with like."""
        main, parts = ([arm for arm in self.arms if arm in group and arm in arms] for group in (MAIN, PARTS))
        for seed in seeds:
            for arm in main:
                for level in self.levels if arm in CLAIMED else self.levels[:1]:
                    self.ensure(Run(level, seed, arm, seed, self.choose(level, arm)))
            for level in self.levels if set(main) >= set(MAIN) else ():
                self.ensure_untrained(level, seed)
        for seed in seeds:
            for arm in parts if self.plan.parts else ():
                self.ensure(Run(MIDDLE, seed, arm, seed, self.choose(MIDDLE, arm)))


def make_corpus(folder: Path, seed: int, plan: Plan) -> Path:
    """Make the corpus of a seed and pack it. A finished one is left as it is."""
    from bench.photos_corpus import write_table
    from pipeline.corpus.table import Table, complete
    from pipeline.sources.scenes.corpus import Settings, write_corpus

    corpus = folder / f"corpus-{seed}"
    if complete(corpus, "training"):
        return corpus
    settings = Settings(
        plan.items, plan.held_out, plan.held_out, seed=seed, languages=LANGUAGES, translation_noise=NOISE
    )
    rows: dict[str, list[dict[str, Any]]] = {"descriptions": []}
    for errors in ERRORS:
        scenes = folder / f"scenes-{seed}-{errors:g}"
        write_corpus(scenes, dataclasses.replace(settings, description_errors=errors))
        rows["descriptions"] += [
            {**row, "view": f"{row['view']}-{errors:g}"}
            for row in Table(scenes, "descriptions").rows()
            if row["view"] in VIEWS
        ]
    rows |= {name: list(Table(scenes, name).rows()) for name in ("items", "captions", "translations")}
    for table in ("items", "captions", "descriptions", "translations"):  # a table after those it refers to
        write_table(corpus, table, rows)
    stage("pack", corpus, "--image-size", 64)
    return corpus


class Difference(NamedTuple):
    """A mean difference of SumR over seeds, half of its 95 % interval and its p-value (Student's t, two-sided)."""

    mean: float
    half: float
    p: float
    seeds: int

    @classmethod
    def of(cls, scores: Scores, row: str, other: str) -> "Difference":
        """`row` less `other`, seed by seed, of the mean over languages."""
        return cls.of_gaps([mean_of(score) - mean_of(rival) for score, rival in scores.pairs(row, other)])

    @classmethod
    def of_gaps(cls, gaps: Sequence[float]) -> "Difference":
        """Of a difference for each seed."""
        if len(gaps) < 2:
            return cls(float(np.mean(gaps)) if gaps else math.nan, math.nan, math.nan, len(gaps))
        test = stats.ttest_1samp(gaps, 0)
        low, high = test.confidence_interval(0.95)
        return cls(float(np.mean(gaps)), float(high - low) / 2, float(test.pvalue), len(gaps))

    def __str__(self) -> str:
        return f"{self.mean:+.1f}" + ("" if math.isnan(self.half) else f" ± {self.half:.1f}")


def mean_of(score: Line) -> float:
    """SumR, the mean over languages."""
    return float(np.mean([of["sum_r"] for of in score["languages"].values()]))


def table(scores: Scores, simple: Sequence[str]) -> list[str]:
    """A row for each row of scores: its mean and those of its languages, the method less it, and what val chose."""
    head = ["", "SumR", *LANGUAGES, f"{METHOD} less it", "seeds", "chosen on val"]
    lines = [f"| {' | '.join(head)} |", f"| --- |{' ---: |' * (len(head) - 2)} --- |"]
    for row, runs in scores.runs.items():
        name = f"**{row}**" if row == METHOD else f"{row} (simple)" if row in simple else row
        means = [np.mean([mean_of(score) for score in runs.values()]), *(scores.mean(row, tag) for tag in LANGUAGES)]
        gap = "" if row == METHOD else str(Difference.of(scores, METHOD, row))
        weights = sorted({score["weight"] for score in runs.values()})
        share = f"weight {' to '.join(f'{weight:g}' for weight in (weights[0], weights[-1])[: len(weights)])}"
        chosen = [text.replace("{first}", "one").replace("{views}", "all") for text in scores.chosen[row]]
        cells = [name, *(f"{mean:.1f}" for mean in means), gap, str(len(runs)), ", ".join([*chosen, share])]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def claims(by_level: Mapping[str, Scores], simple: Sequence[str]) -> list[str]:
    """What the page claims, one line each, with p-values after Holm's correction over these lines."""
    compared = []
    for level, scores in by_level.items():
        only = [row for row in ONLY_DESCRIPTIONS if row in scores.runs]
        best = max(only, key=lambda row: np.mean([mean_of(score) for score in scores.runs[row].values()]), default="")
        rivals = (BEST_FUSION, best, "joint")
        compared += [(level, row, Difference.of(scores, METHOD, row)) for row in rivals if row in scores.runs]
    corrected = holm([1.0 if math.isnan(gap.p) else gap.p for _, _, gap in compared])
    lines = [
        f"- {level}: {METHOD} less {row} {gap}, {gap.seeds} seeds, p {p:.2g}"
        for (level, row, gap), p in zip(compared, corrected, strict=True)
    ]
    for level, scores in by_level.items():
        if {"two towers", WITHOUT} <= scores.runs.keys():
            lines.append(f"- {level}: {WITHOUT}, less two towers {Difference.of(scores, WITHOUT, 'two towers')}")
    return lines


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's correction: the k-th smallest of n p-values times n - k + 1, never less than the one before."""
    order = np.argsort(p_values)
    steps = np.array(p_values)[order] * np.arange(len(order), 0, -1)
    corrected = np.empty(len(order))
    corrected[order] = np.minimum(1, np.maximum.accumulate(steps))
    return [float(p) for p in corrected]


def draw(path: Path, by_level: Mapping[str, Scores]) -> None:
    """Draw the method less every other row, with 95 % intervals over seeds."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = [row for scores in by_level.values() for row in scores.runs if row != METHOD]
    places = {row: place for place, row in enumerate(dict.fromkeys(rows))}
    figure, axes = pyplot.subplots(figsize=(8, 0.32 * len(places) + 1.2), layout="constrained")
    for number, (level, scores) in enumerate(by_level.items()):
        gaps = {row: Difference.of(scores, METHOD, row) for row in scores.runs if row != METHOD}
        heights = [places[row] + 0.15 * (2 * number - 1) for row in gaps]
        halves = [0 if math.isnan(gap.half) else gap.half for gap in gaps.values()]
        axes.errorbar([gap.mean for gap in gaps.values()], heights, xerr=halves, fmt="o", capsize=3, label=level)
    axes.set_yticks(list(places.values()), list(places))
    axes.invert_yaxis()
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_xscale("symlog", linthresh=20)
    axes.set_xlabel(f"{METHOD} less it: SumR on test, of 600; bars: 95 % over seeds")
    axes.grid(axis="x", alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def report(lines: Sequence[Line], levels: Sequence[str]) -> tuple[str, dict[str, Scores]]:
    """The tables and the claims in Markdown, and the scores of each level."""
    by_level = {level: scores for level in levels if METHOD in (scores := Scores(lines, level)).runs}
    simple = simple_rows(MAIN)
    parts = [text for level, scores in by_level.items() for text in (f"### {level}", "", *table(scores, simple), "")]
    return "\n".join([*claims(by_level, simple), "", *parts]), by_level


def fill_page(path: Path, tables: str) -> None:
    """Put the tables between the marks in a page; what people have written around them stays."""
    text = path.read_text("utf-8") if path.exists() else f"{BEGIN}\n{END}\n"
    before, after = text[: text.index(BEGIN) + len(BEGIN)], text[text.index(END) :]
    path.write_text(f"{before}\n{tables.rstrip()}\n{after}", "utf-8")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the study and write its page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few runs of seconds: that it works, not what it finds")
    parser.add_argument("--report", action="store_true", help="only the page, from the runs that are there")
    parser.add_argument("--output", type=Path, help="folder of runs and page (docs/study; --quick needs one)")
    parser.add_argument("--scratch", type=Path, default=Path("study"), help="folder of corpora and logs (study)")
    parser.add_argument("--seeds", type=int, nargs="+", help="only these, so that processes can share the work")
    parser.add_argument("--arms", nargs="+", choices=(*MAIN, *PARTS), help="only these")
    options = parser.parse_args(argv)
    if options.quick and not options.output:
        parser.error("--quick needs --output FOLDER, so that its runs do not mix with those of the study")
    os.environ.setdefault("ACCELERATE_USE_CPU", "true")
    plan = QUICK if options.quick else Plan()
    study = Scenes(options.output or ROOT / "docs" / "study", options.scratch, plan)
    if not options.report:
        print(machine(), flush=True)
        study.study(options.seeds or range(plan.seeds), options.arms or (*MAIN, *PARTS))
    tables, by_level = report(study.lines, [level.name for level in LEVELS])
    fill_page(study.output / "README.md", tables)
    draw(study.output / "differences.png", by_level)


if __name__ == "__main__":
    main()

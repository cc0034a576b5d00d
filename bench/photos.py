"""Does LECCR earn its keep on photographs? Runs on Flickr8k over seeds, next to everything simpler.

    python bench/photos.py --data FOLDER            every run that is missing; hours, in as many pieces as you like
    python bench/photos.py --data FOLDER --quick    two seeds of the main arms, 100 steps, untried settings: minutes
    python bench/photos.py --data FOLDER --report   the tables from the runs that are there

FOLDER holds Flickr8k, see `bench.photos_corpus`. A finished run is a line of OUTPUT/runs.jsonl and is not repeated.
Scores are SumR on split test; settings, steps and the weights of late fusion are chosen on val.

Descriptions are captions by people, withheld everywhere else: *strong* as they were written, *noisy* made worse. They
stand in place of an MLLM's and are no evidence about one. *Captioner*: a small captioner describes the pictures, which
learned from the captions of split train, see `bench.photos_captioner`.
"""

import argparse
import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import photos_corpus, photos_report
from bench.arms import SIMPLE, Arm, Bench, Regime, Run, simple_rows
from bench.common import machine

LANGUAGES = ("en", "zh")
TARGETS = ("languages=zh", "human_targets=no")
TOWERS = ("slots=none",)
JOINT = ("read_views=no", "local_weight=1", "caption_vision_weight=0", "own_weight=0", "view_dropout=0")
QUERIES = ("slots=queries", "embedded_width=256", "num_heads=4", "slot_layers=1", "interaction_layers=1")

# The settings that are tried for an arm with seed 0; the best on val is used for every seed. As many for each main arm.
SHORT, LONG = "steps=140", "steps=280"
NO_DROPOUT, DROPOUT, MORE_DROPOUT = "media_dropout=0", "media_dropout=.2", "media_dropout=.4"
FIRST, ALL = "extra_views={first}", "extra_views={views}"  # descriptions as further captions
GRID = (
    *((steps, dropout) for dropout in (MORE_DROPOUT, DROPOUT) for steps in (SHORT, LONG)),
    (SHORT, DROPOUT, FIRST),
    (SHORT, DROPOUT, "lr=.001"),
)
TOWERS_GRID = (
    *((LONG, dropout, FIRST) for dropout in (NO_DROPOUT, DROPOUT, MORE_DROPOUT)),
    *((LONG, dropout) for dropout in (DROPOUT, MORE_DROPOUT)),
    (LONG, DROPOUT, ALL),
)

THREE = ("corrected", "towers on descriptions", "joint")
MAIN = {
    "corrected": Arm((), {"corrected, no descriptions": "bare", "corrected": "fused"}, grid=GRID, paired=True),
    "towers on descriptions": Arm(
        TOWERS, {"two towers on descriptions": "global", "late fusion, best": "fused"}, SIMPLE, TOWERS_GRID, paired=True
    ),
    "joint": Arm(JOINT, {"joint": "fused"}, grid=GRID, paired=True),
    "towers": Arm(TOWERS, {"two towers": "global", "late fusion": "fused"}, SIMPLE, ((LONG, DROPOUT),), paired=True),
}
PART_SETTINGS = {
    "without reading views": ("read_views=no",),
    "equal trust": ("trust=equal",),
    "trust by name": ("trust=name",),
    "without view dropout": ("view_dropout=0",),
    "without own loss": ("own_weight=0",),
    "without local loss": ("local_weight=0",),
    "with caption–vision loss": ("caption_vision_weight=.5",),
    "with softened matching": ("distillation_weight=.5",),
    "with diversity loss": ("diversity_weight=.01",),
    "with source–target loss": ("source_target_weight=1",),
    "slots are queries": QUERIES,
    "faithful": ("method=faithful", "select_on=val", "horizontal_flip=0", "smallest_crop=1", *QUERIES),
}
# What protects items without descriptions is also scored without them.
BARE = ("without view dropout", "without own loss")
PARTS = {
    name: Arm(settings, ({f"{name}, no descriptions": "bare"} if name in BARE else {}) | {name: "fused"})
    for name, settings in PART_SETTINGS.items()
}
ARMS = MAIN | PARTS
REFERENCES = {f"{name}, no descriptions": "corrected, no descriptions" for name in BARE}
STRONG, NOISY = (
    Regime("strong", (photos_corpus.strong_views(),)),
    Regime("noisy", tuple(photos_corpus.noisy_views(draw) for draw in range(photos_corpus.DRAWS))),
)
CAPTIONER = Regime("captioner", (photos_corpus.captioner_views(),))
REGIMES = (NOISY, CAPTIONER, STRONG)  # the order of the report
# One human view without another, with one that is another picture's half of the time, with one of the captioner.
TRUST_ARMS = ("corrected", "equal trust", "trust by name")
MIXED = Regime("one view and the captioner's", (("strong-0", photos_corpus.captioner_views()[0]),))
TRUST = (Regime("one view", (("strong-0",),)), Regime("one view and a bad one", (("strong-0", "bad"),)), MIXED)


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is run."""

    seeds: int = 5
    draws: int = photos_corpus.DRAWS
    tried: int = len(GRID)  # settings of each grid
    groups: tuple[tuple[str, ...], ...] = (tuple(MAIN), tuple(PARTS))
    regimes: tuple[Regime, ...] = (STRONG, NOISY, CAPTIONER)
    trust: bool = True
    steps: int = 0  # of every run, in place of the grid's


QUICK = Plan(2, draws=1, tried=1, groups=(THREE,), regimes=(STRONG, NOISY), trust=False, steps=100)


class Photos(Bench):
    """The runs on photographs.

    Args:
        output: Folder of the runs.
        data: The corpus.
        plan: What is run.
    """

    recipe, languages, common = "photos", LANGUAGES, TARGETS

    def __init__(self, output: Path, data: Path, plan: Plan):
        super().__init__(output, ARMS, plan.tried, plan.steps)
        self.data, self.plan = data, plan

    def corpus(self, regime: Regime, draw: int) -> Path:
        """One corpus has all descriptions by people as views; those with the captioner's are next to it."""
        return self.data.with_name({CAPTIONER: "captioner", MIXED: "mixed"}.get(regime, self.data.name))

    def details(self, ranks: Any) -> dict[str, Any]:
        """The hits of each picture."""
        return photos_report.hits_by_picture(ranks)

    def study(self) -> None:
        """Carry out the plan: the main arms first, seed by seed, so that a stopped bench compares like with like."""
        for group in self.plan.groups:
            for seed in range(self.plan.seeds):
                for regime in self.plan.regimes:
                    for draw in range(min(self.plan.draws, len(regime.draws))):
                        for arm in [name for name in group if regime != CAPTIONER or name in THREE]:
                            runs = [Run(regime, draw, arm, n, self.choose(regime, arm)) for n in (seed - 1, seed)]
                            self.ensure(runs[1])
                            if seed and ARMS[arm].paired:
                                self.ensure_pair(*runs)
                        self.ensure_untrained(regime, draw)
        trust = self.plan.trust and STRONG in self.plan.regimes
        for seed in range(self.plan.seeds if trust else 0):
            for regime in TRUST if CAPTIONER in self.plan.regimes else TRUST[:-1]:
                for arm in TRUST_ARMS:
                    self.ensure(Run(regime, 0, arm, seed, self.choose(STRONG, "corrected")))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="Flickr8k, see bench/photos_corpus.py")
    parser.add_argument("--output", type=Path, default=Path("photos"), help="folder of corpus and runs (photos)")
    parser.add_argument("--quick", action="store_true", help="two seeds of the main arms, one setting each")
    parser.add_argument("--seeds", type=int, help="seeds of each arm")
    parser.add_argument("--tried", type=int, help="settings tried for each arm")
    parser.add_argument("--regimes", nargs="+", choices=[of.name for of in REGIMES], help="only these")
    parser.add_argument("--report", action="store_true", help="only the tables, from the runs that are there")
    options = parser.parse_args(argv)
    plan = QUICK if options.quick else Plan()
    given = {name: value for name in ("seeds", "tried") if (value := getattr(options, name))}
    plan = dataclasses.replace(plan, **given)
    if options.regimes:
        plan = dataclasses.replace(plan, regimes=tuple(of for of in plan.regimes if of.name in options.regimes))
    os.environ.setdefault("ACCELERATE_USE_CPU", "true")
    corpus = options.output / "corpus"
    if not options.report:
        print(machine(), flush=True)
        photos_corpus.make_corpus(options.data, corpus)
        if CAPTIONER in plan.regimes:
            from bench import photos_captioner

            captioner = photos_captioner.make_corpus(options.data, corpus.with_name("captioner"))
            photos_corpus.make_mixed_corpus(options.data, captioner, corpus.with_name("mixed"))
    runs = Photos(options.output, corpus, plan)
    if not options.report:
        runs.study()
    names = ([regime.name for regime in regimes] for regimes in (REGIMES, TRUST))
    print(photos_report.report(runs.lines, simple_rows(ARMS), *names, REFERENCES))


if __name__ == "__main__":
    main()

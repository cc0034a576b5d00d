"""Views in the users' languages, or translations of English views? On scenes, where errors and noise are known.

    python bench/view_languages.py            every run that is missing, then the table; half an hour of one core
    python bench/view_languages.py --report   the table from the runs that are there

No caption by people is trained on. A describer writes three sentences of each picture, in English or in Czech, German
and Chinese, and each fact in each of them is wrong with probability ERRORS. English sentences are translated with NOISE
of `bench/study.py`. A describer that is worse in those languages than in English has WORSE errors there. Items have the
same English descriptions for their slots in every row; queries are captions of the scenes.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.arms import METHOD, Arm, Bench, Regime, Run, Scores
from bench.common import machine, stage
from bench.photos_corpus import Row, description_row, write_table
from bench.study import LANGUAGES, METHOD_GRID, NOISE, VIEWS, Difference, Plan, Scenes, mean_of

if TYPE_CHECKING:
    from pipeline.sources.scenes.corpus import Item

ERRORS, WORSE = 0.1, (0.1, 0.2, 0.4)
SENTENCES = 3  # of a picture and language
TRANSLATED, BOTH = "translated", "both"


def view_regime(errors: float) -> str:
    """The name of the regime whose describer writes in the users' languages with these errors."""
    return f"views, {errors:.0%} errors"


REGIMES = tuple(Regime(name, (VIEWS,)) for name in (TRANSLATED, *map(view_regime, WORSE), BOTH))


class Languages(Scenes):
    """The runs; a regime is what the texts of the users' languages are."""

    levels = REGIMES
    common = (*Scenes.common, "source_language=und", f"extra_views={','.join(f'en-{n}' for n in range(SENTENCES))}")

    def __init__(self, output: Path, scratch: Path, plan: Plan):
        super().__init__(output, scratch, plan)
        self.arms = {METHOD: Arm((), {METHOD: "fused"}, grid=METHOD_GRID)}

    def choose(self, regime: Regime, arm: str) -> tuple[str, ...]:
        """The setting that was best with these texts."""
        return Bench.choose(self, regime, arm)

    def corpus(self, regime: Regime, draw: int) -> Path:
        """The corpus of a seed with these texts."""
        return make_corpus(self.work, self.first_seed + draw, self.plan, regime.name)

    def compare(self, seeds: Sequence[int]) -> None:
        """Carry out the plan seed by seed."""
        for seed in seeds:
            for regime in REGIMES:
                self.ensure(Run(regime, seed, METHOD, seed, self.choose(regime, METHOD)))


def make_corpus(folder: Path, seed: int, plan: Plan, name: str) -> Path:
    """Make the corpus of a seed and pack it. A finished one is left as it is."""
    from pipeline.corpus.table import Table, complete
    from pipeline.sources.scenes.corpus import TRAIN, Settings, write_corpus
    from pipeline.sources.scenes.corpus import plan as plan_items

    corpus = folder / f"corpus-{seed}-{name.replace(' ', '-')}"
    if complete(corpus, "training"):
        return corpus
    settings = Settings(
        plan.items, plan.held_out, plan.held_out, seed=seed, languages=LANGUAGES, description_errors=ERRORS
    )
    scenes = folder / f"scenes-{seed}"
    write_corpus(scenes, settings)
    rows: dict[str, list[Row]] = {table: list(Table(scenes, table).rows()) for table in ("items", "captions")}
    rows["captions"] = [row for row in rows["captions"] if row["split"] != TRAIN]
    rows["descriptions"] = [row for row in Table(scenes, "descriptions").rows() if row["view"] in VIEWS]
    rows["translations"] = []
    for item in plan_items(settings):
        if item.split == TRAIN:
            for table, texts in item_texts(item, seed, name).items():
                rows[table] += texts
    for table in rows:
        write_table(corpus, table, rows)
    stage("pack", corpus, "--image-size", 64)
    return corpus


def item_texts(item: "Item", seed: int, name: str) -> dict[str, list[Row]]:
    """Descriptions and translations of an item in a regime."""
    from pipeline.sources.scenes.content import generator, mistaken
    from pipeline.sources.scenes.corpus import REVISION, TRANSLATOR, item_messages
    from pipeline.sources.scenes.grammar import SOURCE, caption
    from pipeline.sources.scenes.noise import translation

    views, translations = [], []
    errors = next((errors for errors in WORSE if name == view_regime(errors)), ERRORS)
    for number, message in enumerate(item_messages(item, seed)):
        stated = mistaken(message, generator(seed, item.item_id, SOURCE, number), ERRORS)
        english = description_row(item.item_id, f"{SOURCE}-{number}", caption(stated, SOURCE))
        views.append(english)
        for language in LANGUAGES:
            if name != TRANSLATED:
                own = mistaken(message, generator(seed, item.item_id, language, number), errors)
                view = description_row(item.item_id, f"{language}-{number}", caption(own, language))
                views.append(view | {"language": language})
            if name in (TRANSLATED, BOTH):
                row = {"caption_id": f"{item.item_id}#{SOURCE}-{number}", "item_id": item.item_id, "flags": []}
                row |= {"source_table": "descriptions", "source_language": SOURCE, "source_text": english["text"]}
                row |= {"target_language": language, "translator": TRANSLATOR, "revision": REVISION, "decoding": "{}"}
                text, quality = translation(stated, language, NOISE, seed, row["caption_id"])
                translations.append(row | {"text": text, "scores": {"quality": quality}})
    return {"descriptions": views, "translations": translations}


def report(bench: Languages) -> str:
    """A row for each kind of texts: SumR, the mean over languages, and what it has over translations."""
    texts = {regime.name: Scores(bench.lines, regime.name).runs for regime in REGIMES}
    lines = ["| texts of the users' languages | SumR | less translated | seeds |", "| --- | ---: | ---: | ---: |"]
    for name, runs in texts.items():
        if METHOD in runs:
            gaps = [
                mean_of(score) - mean_of(texts[TRANSLATED][METHOD][key])
                for key, score in runs[METHOD].items()
                if key in texts[TRANSLATED].get(METHOD, {})
            ]
            mean = sum(map(mean_of, runs[METHOD].values())) / len(runs[METHOD])
            gap = "" if name == TRANSLATED else str(Difference.of_gaps(gaps))
            lines.append(f"| {name} | {mean:.1f} | {gap} | {len(runs[METHOD])} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--report", action="store_true", help="only the table, from the runs that are there")
    parser.add_argument("--output", type=Path, default=Path("view-languages"), help="folder of everything")
    parser.add_argument("--seeds", type=int, default=5, help="seeds of scenes and training (5)")
    parser.add_argument("--quick", action="store_true", help="a few runs of seconds: that it works, not what it finds")
    options = parser.parse_args(argv)
    os.environ.setdefault("ACCELERATE_USE_CPU", "true")
    plan = Plan(options.seeds)
    if options.quick:
        plan = Plan(min(options.seeds, 2), items=60, held_out=20, tried=1, steps=4)
    bench = Languages(options.output, options.output / "scratch", plan)
    if not options.report:
        print(machine(), flush=True)
        bench.compare(range(plan.seeds))
    print(report(bench))


if __name__ == "__main__":
    main()

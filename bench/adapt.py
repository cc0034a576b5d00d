"""What does adapting a dual encoder to one's own photographs bring, and how much data does it take? On Flickr8k.

    python bench/adapt.py --data FOLDER            every run that is missing, then the tables
    python bench/adapt.py --data FOLDER --report   the tables from the runs that are there

A pretrained dual encoder cannot be had without a model hub, so the embedded encoders are made into one: sentence
vectors as they are, and pictures mapped into their space by ridge regression on the English captions of half of split
train. It is saved as a model, and recipe `adapt` starts from it. FOLDER is that of `bench.photos_corpus`: two of the
captions that people wrote of a picture are its descriptions, withheld everywhere else, for an MLLM's (*strong*).

A model is adapted to Chinese without a Chinese label, from a share of split train, with English captions by people or
only with descriptions, both translated by a machine. Shares below one do not have the pictures of the regression.
Late fusion adds the similarities of descriptions, of the zero-shot encoder or of one that was adapted without them; its
weights, and the step of a run, are chosen on val. Queries are by people.
"""

import argparse
import os
import random
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import photos_corpus as photos
from bench.arms import SIMPLE, Arm, Bench, Regime, Run, Scores, embed, quiet
from bench.common import machine, stage
from bench.photos_report import difference, hits_by_picture

LANGUAGES = ("en", "zh")
WIDTH = 512  # of sentence vectors
PARTS = (16, 16, 8, 4, 2)  # split train in parts of a sixteenth, another, an eighth …; the regression has the last
SHARES = ("1/16", "1/8", "1/4", "1/2", "1/1")  # the first part, the first two …
RIDGE = (0.01, 0.1, 1.0, 10.0)  # tried as shares of the mean square of the pictures' features, the best on val is taken
# What to adapt with: English captions by people, or descriptions only; both are translated by a machine.
PEOPLE, DESCRIBED = "captions", "descriptions"
PAIRS = "all captions, a share translated"
# Or descriptions, with as many in Chinese by people in place of their translations, or next to these.
IN_CHINESE, IN_BOTH = "Chinese views", "Chinese views and translations"
WITHOUT_CAPTIONS = ("source_language=und", "extra_views={views}")  # no caption is in this language
SOURCES: Mapping[str, tuple[str, ...]] = {PEOPLE: (), DESCRIBED: WITHOUT_CAPTIONS, PAIRS: ()}
VIEW_SOURCES: Mapping[str, tuple[str, ...]] = {IN_CHINESE: WITHOUT_CAPTIONS, IN_BOTH: WITHOUT_CAPTIONS}
CHINESE_VIEWS = ("chinese-0", "chinese-1")
ADAPTED, TOWERS = "adapted", "towers"
ARMS = {
    ADAPTED: Arm((), {"adapted, no descriptions": "bare", "adapted": "fused"}),
    TOWERS: Arm(("slots=none",), {"two towers": "global", "late fusion, adapted towers": "fused"}, SIMPLE),
}
ZERO, FUSED = "zero-shot", "late fusion, zero-shot"
COMMON = (
    *("languages=zh", "human_targets=no", "media=embedded", "text=embedded", f"embedded_width={WIDTH}"),
    *("steps=100", "batch_size=256", "lr=.001", "new_layer_lr_multiplier=1"),
)


CURVE = tuple(ARMS[ADAPTED].rows)
VAL_AND_TEST = (("on_val", "zh"), ("languages", "zh"), ("languages", "en"))


class Adapt(Bench):
    """The runs; a regime is a share of split train and what describes it."""

    recipe, languages, common, validations = "adapt", LANGUAGES, COMMON, 2

    def __init__(self, output: Path, seeds: int, steps: int = 0):
        super().__init__(output, ARMS, steps=steps)
        self.seeds = seeds
        self.held_out = output / "held-out"

    def details(self, ranks: Any) -> dict[str, Any]:
        """The hits of each picture."""
        return hits_by_picture(ranks)

    def study(self) -> None:
        """All of split train first, then the curve."""
        self.ensure_zero_shot()
        for seed in range(self.seeds):
            for arm in ARMS:
                self.ensure(Run(regime(SHARES[-1], PEOPLE), 0, arm, seed, ()))
            for source, settings in (SOURCES | VIEW_SOURCES).items():
                self.ensure(Run(regime(SHARES[-1], source), 0, ADAPTED, seed, settings))
        for share in reversed(SHARES):
            for source, settings in SOURCES.items():
                for seed in range(self.seeds):
                    self.ensure(Run(regime(share, source), 0, ADAPTED, seed, settings))

    def ensure_zero_shot(self) -> None:
        """Keep the scores of the model before training."""
        key = (ZERO, 0, ZERO, 0, ())
        if not self.find(key):
            began = time.monotonic()
            with quiet(self.work / "log.txt"):
                model = str(self.pretrained(TOWERS))
                bare, vectors = (
                    embed(model, self.held_out, LANGUAGES, photos.strong_views(), bare=bare) for bare in (True, False)
                )
            self.add(key, (), {ZERO: self.score(bare, "bare"), FUSED: self.score(vectors, "fused")}, began)

    def pretrained(self, arm: str) -> Path:
        """The folder of the dual encoder with the settings of an arm, made if it is missing."""
        folder = self.output / f"pretrained-{arm}"
        if not (folder / "best").exists():
            make_dual_encoder(self, arm, folder)
        return folder / "best"

    def train(self, run: Run) -> tuple[Any, Any]:
        """Adapt to a share of split train and embed val and test; the run's folder is deleted."""
        from stages import train

        folder, init = self.work / f"run-{os.getpid()}", self.pretrained(run.arm)
        share, source = run.regime.name.split(maxsplit=1)
        parts = SHARES.index(share) + 1
        corpora = [views_folder(self.output, source)]
        if source not in VIEW_SOURCES:
            corpora = [part_folder(self.output, part) for part in range(parts)]
        if source == PAIRS:
            corpora += [part_folder(self.output, part, PAIRS) for part in range(parts, len(PARTS))]
        settings = [*self.settings(run), f"init={init}", f"seed={run.seed}"]
        settings += [f"steps={self.steps}"] if self.steps else []
        steps = int(next(text for text in reversed(settings) if text.startswith("steps=")).partition("=")[2])
        settings += [f"validate_every={max(1, steps // self.validations)}", "global_weights=.3,.5,.7"]
        command = ["--recipe", self.recipe, "--output", str(folder), "--overwrite", *settings]
        with quiet(self.work / f"log-{os.getpid()}.txt"):
            train.main([*command, *(word for corpus in [self.held_out, *corpora] for word in ("--data", str(corpus)))])
            given = str(folder), self.held_out, LANGUAGES, self.views(run)
            vectors = embed(*given)
            bare = embed(*given, bare=True) if "bare" in self.arms[run.arm].rows.values() else None
        shutil.rmtree(folder)
        return vectors, bare

    def score(self, vectors: Sequence[Any], how: str) -> dict[str, Any]:
        """As the benches do, with the hits on val too."""
        from model.fusion import Fusion

        score = super().score(vectors, how)
        fusion = Fusion(score["weight"], score["pooling"], score["view_weights"])
        return score | {"on_val": self.rank(vectors[0].fused(fusion), fusion.global_weight)}


def regime(share: str, source: str) -> Regime:
    """A share of split train, adapted to with these English texts."""
    if source == PAIRS and share == SHARES[-1]:
        source = PEOPLE
    return Regime(f"{share} {source}", (photos.strong_views(),))


def part_folder(output: Path, part: int, source: str = PEOPLE) -> Path:
    """The corpus of a part of split train; for PAIRS one that is not translated."""
    return output / f"part-{part}{'-untranslated' if source == PAIRS else ''}"


def views_folder(output: Path, source: str) -> Path:
    """The corpus of split train with Chinese views."""
    return output / source.replace(" ", "-")


def make_corpora(data: Path, output: Path) -> None:
    """Make a corpus of each part of split train, of all of it with Chinese views, and of val and test.

    Finished ones are left as they are.
    """
    splits = photos.read_splits(data)
    names = random.Random("parts").sample(splits["train"], len(splits["train"]))
    parts = np.split(np.array(names), np.cumsum([len(names) // part for part in PARTS[:-1]]))
    plan = [
        *(
            (part_folder(output, number, source), {"train": list(part)}, source)
            for source in (PEOPLE, PAIRS)
            for number, part in enumerate(parts)
            if source == PEOPLE or number
        ),
        *((views_folder(output, source), {"train": names}, source) for source in VIEW_SOURCES),
        (output / "held-out", {split: splits[split] for split in ("val", "test")}, PEOPLE),
    ]
    texts = {name: photos.read_captions(data, name) for name in photos.FILES}
    for corpus, own, source in plan:
        if photos.complete(corpus, "training"):
            continue
        rows = corpus_rows(data, own, texts, source)
        for table in rows:
            photos.write_table(corpus, table, rows)
        stage("pack", corpus, "--image-size", photos.PIXELS)


def corpus_rows(
    data: Path,
    splits: Mapping[str, Sequence[str]],
    texts: Mapping[str, Mapping[str, Sequence[str]]],
    source: str = PEOPLE,
) -> dict[str, list[photos.Row]]:
    """The rows of the tables; in split train descriptions are translated too, as texts that refer to their view.

    A source of VIEW_SOURCES has Chinese views there; IN_CHINESE and PAIRS have no translations.
    """
    rows: dict[str, list[photos.Row]] = {"items": [], "captions": [], "descriptions": []}
    for split, names in splits.items():
        for name in names:
            english, human, machine_made = (texts[of][name] for of in photos.FILES)
            withheld = photos.withheld_captions(name, len(english))
            rows["items"].append(photos.item_row((data / "images" / name).resolve(), split))
            of_item = [
                photos.caption_row(name, "en", number, text, "human", split)
                for number, text in enumerate(english)
                if number not in withheld
            ]
            if split == "train":
                for number, text in enumerate(machine_made if source not in (IN_CHINESE, PAIRS) else ()):
                    row = photos.caption_row(name, "zh", number, text, "mt", split)
                    if number in withheld:
                        row["caption_id"] = f"{name}#{photos.strong_views()[withheld.index(number)]}>zh"
                    of_item.append(row)
            else:
                of_item += [
                    photos.caption_row(name, "zh", number, text, "human", split) for number, text in enumerate(human)
                ]
            rows["captions"] += of_item
            rows["descriptions"] += [
                photos.description_row(name, view, english[number])
                for view, number in zip(photos.strong_views(), withheld, strict=True)
            ]
            if source in VIEW_SOURCES:
                chosen = random.Random(f"Chinese {name}").sample(human, len(CHINESE_VIEWS))
                rows["descriptions"] += [
                    photos.description_row(name, view, text) | {"language": "zh"}
                    for view, text in zip(CHINESE_VIEWS, chosen, strict=True)
                ]
    return rows


def make_dual_encoder(bench: Adapt, arm: str, folder: Path) -> None:
    """Save sentence vectors and pictures mapped into their space as a model, with the settings of an arm."""
    import torch

    from model.modeling import LeccrModel
    from model.processing import LeccrProcessor
    from stages.data.samples import Shards
    from stages.data.states import ensure_states
    from stages.training.settings import resolve

    settings = resolve(bench.recipe, [*COMMON, *bench.arms[arm].settings])
    spec = {"kind": "embedded", "width": WIDTH}
    views = photos.strong_views() if settings.model.get("slots") != "none" else ()
    model = LeccrModel.create(spec, spec, **settings.model, views=views)
    processor = LeccrProcessor.create("embedded", "embedded")
    shards = Shards([part_folder(bench.output, len(PARTS) - 1)])
    stored = ensure_states(shards, model, processor, photos.strong_views())
    assert stored.media and stored.captions
    ensure_states(Shards([bench.held_out]), model, processor, photos.strong_views())
    features, targets = [], []
    for number in range(len(shards)):
        for row in range(shards.shard(number).num_rows):
            captions = shards.row(number, row, media=False)["captions"]
            english = [place for place, caption in enumerate(captions) if caption["language"] == "en"]
            features.append(stored.media.array(number, row)[0, 0])
            targets.append(stored.captions.array(number, row)[english].mean(0))
    x_NI, y_NE = (np.array(rows, np.float64) for rows in (features, targets))
    x_I, y_E = x_NI.mean(0), y_NE.mean(0)
    x_NI -= x_I
    scatter_II, mixed_IE = x_NI.T @ x_NI, x_NI.T @ (y_NE - y_E)
    tried = []
    for number, ridge in enumerate(RIDGE):
        diagonal = ridge * np.trace(scatter_II) / len(scatter_II)
        map_IE = np.linalg.solve(scatter_II + diagonal * np.eye(len(scatter_II)), mixed_IE)
        with torch.no_grad():
            model.media_encoder.tower.project.weight.copy_(torch.from_numpy(map_IE.T))
            model.media_encoder.tower.project.bias.copy_(torch.from_numpy(y_E - x_I @ map_IE))
        path = folder / str(number)
        model.save_pretrained(path)
        processor.save_pretrained(path)
        score = bench.score(embed(str(path), bench.held_out, LANGUAGES, photos.strong_views(), bare=True), "bare")
        tried.append((score["val"], path))
        print(f"ridge {ridge:g}: SumR {score['val']:.1f} on val", flush=True)
    max(tried)[1].rename(folder / "best")


def report(bench: Adapt) -> str:
    """The tables, and the lines that sum them up."""
    zero, full = Scores(bench.lines, ZERO), Scores(bench.lines, regime(SHARES[-1], PEOPLE).name)
    rows = zero.runs | full.runs
    lines = ["| | zh, val | zh | en | adapted less it, zh | en |", "| --- | ---: | ---: | ---: | ---: | ---: |"]
    for row, scores in rows.items():
        reference = ADAPTED if "fusion" in row or row == ADAPTED else CURVE[0]
        gaps = [f"{compare(rows, reference, row, language)}" if row != reference else "" for language in ("zh", "en")]
        cells = [row, *(f"{mean(scores, *place):.1f}" for place in VAL_AND_TEST), *gaps]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "| share of train | " + " | ".join(f"{source}: {row}" for source in SOURCES for row in CURVE) + " |"]
    lines += [f"| --- |{' ---: |' * len(SOURCES) * len(CURVE)}"]
    for share in SHARES:
        curves = [Scores(bench.lines, regime(share, source).name).runs for source in SOURCES]
        cells = [f"{mean(runs[row], 'languages', 'zh'):.1f}" if row in runs else "" for runs in curves for row in CURVE]
        lines.append(f"| {share} | {' | '.join(cells)} |")
    lines += ["", f"| Chinese texts | {CURVE[0]} | more than translations | {CURVE[1]} | more than translations |"]
    lines += ["| --- | ---: | ---: | ---: | ---: |"]
    by_source = {of: Scores(bench.lines, regime(SHARES[-1], of).name).runs for of in (DESCRIBED, *VIEW_SOURCES)}
    for source, runs in by_source.items():
        cells = [source if source in VIEW_SOURCES else "translations of descriptions"]
        for row in CURVE if runs else ():
            gap = compare({"": by_source[DESCRIBED][row], source: runs[row]}, source, "", "zh")
            cells += [f"{mean(runs[row], 'languages', 'zh'):.1f}", f"{gap}" if source in VIEW_SOURCES else ""]
        lines.append(f"| {' | '.join(cells)} |")
    lines.append("")
    for split, language in (("on_val", "zh"), ("languages", "en"), ("languages", "zh")):
        name = f"adapt {language}{', val' if split == 'on_val' else ''}"
        bare, fusions = CURVE[0], [row for row in rows if "fusion" in row]
        best = max(fusions, key=lambda row: mean(rows[row], split, language))
        adapted, zero_shot = (f"{mean(rows[row], split, language):.1f}" for row in (bare, ZERO))
        gap = compare(rows, bare, ZERO, language, split)
        lines.append(f"{name}, no descriptions: adapted {adapted}, zero-shot {zero_shot}, difference {gap}")
        fused, late = (f"{mean(rows[row], split, language):.1f}" for row in (ADAPTED, best))
        gap = compare(rows, ADAPTED, best, language, split)
        lines.append(f"{name}: adapted {fused}, zero-shot {zero_shot}, late fusion {late}, difference {gap}")
    return "\n".join(lines)


def mean(scores: Mapping[Any, Any], split: str, language: str) -> float:
    """Mean SumR over seeds."""
    return float(np.mean([score[split][language]["sum_r"] for score in scores.values()]))


def compare(rows: Mapping[str, Any], row: str, other: str, language: str, split: str = "languages") -> Any:
    """`row` less `other`, with its interval."""
    pairs = [
        ({"languages": score[split]}, {"languages": rival[split]})
        for (draw, seed), score in rows[row].items()
        if (rival := rows[other].get((draw, seed)) or rows[other].get((draw, None)))
    ]
    return difference(pairs, language)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="Flickr8k, see bench/photos_corpus.py")
    parser.add_argument("--output", type=Path, default=Path("adapt"), help="folder of corpora and runs (adapt)")
    parser.add_argument("--seeds", type=int, default=2, help="seeds of the runs on all of split train (2)")
    parser.add_argument("--report", action="store_true", help="only the tables, from the runs that are there")
    options = parser.parse_args(argv)
    os.environ.setdefault("ACCELERATE_USE_CPU", "true")
    if not options.report:
        print(machine(), flush=True)
        make_corpora(options.data, options.output)
    bench = Adapt(options.output, options.seeds)
    if not options.report:
        bench.study()
    print(report(bench))


if __name__ == "__main__":
    main()

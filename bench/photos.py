"""Does LECCR earn its keep on photographs? Runs on Flickr8k over seeds, next to everything simpler.

    python bench/photos.py --data FOLDER            every run that is missing; hours, in as many pieces as you like
    python bench/photos.py --data FOLDER --quick    two seeds of the main arms with untried settings: minutes
    python bench/photos.py --data FOLDER --report   the tables from the runs that are there

FOLDER holds Flickr8k, see `bench.photos_corpus`. A finished run is a line of OUTPUT/runs.jsonl and is not repeated.
Scores are SumR on split test; settings, steps and the weights of late fusion are chosen on val.

Descriptions are captions by people, withheld everywhere else: *strong* as they were written, *noisy* made worse. They
stand in place of an MLLM's and are no evidence about one. A regime in which a small captioner, trained on the train
split only, describes the pictures would be a further entry of REGIMES with its views in `bench.photos_corpus`.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import photos_corpus, photos_report
from bench.common import machine
from bench.study import commit
from pipeline.hashing import canonical_json, short_hash

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

SIMPLE, DESCRIBED = "simple", "described"  # not trained, or trained, on queries and descriptions


@dataclasses.dataclass(frozen=True)
class Arm:
    """A model to train.

    Attributes:
        settings: What differs from the recipe `photos`.
        rows: The rows of the table that it gives, and how the score of each is made up: see `score`. The best setting
            is chosen by the last.
        kind: SIMPLE or DESCRIBED.
        grid: The settings to try; those of `corrected` are taken, not tried again, if there are none.
        paired: Whether two seeds are also fused.
    """

    settings: tuple[str, ...]
    rows: Mapping[str, str]
    kind: str = DESCRIBED
    grid: tuple[tuple[str, ...], ...] = ()
    paired: bool = False


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
UNTRAINED = {"zero-shot embedded": "global", "zero-shot, late fusion": "fused", "descriptions only": "descriptions"}
SIMPLE_ROWS = (*UNTRAINED, *(row for arm in ARMS.values() if arm.kind == SIMPLE for row in arm.rows))


@dataclasses.dataclass(frozen=True)
class Regime:
    """Descriptions of one kind; `draws` are those that differ only by chance."""

    name: str
    draws: tuple[tuple[str, ...], ...]  # views of each

    def settings(self, draw: int) -> tuple[str, ...]:
        """What the slots read."""
        return (f"slot_views={','.join(self.draws[draw])}",)


STRONG, NOISY = (
    Regime("strong", (photos_corpus.strong_views(),)),
    Regime("noisy", tuple(photos_corpus.noisy_views(draw) for draw in range(photos_corpus.DRAWS))),
)
REGIMES = (NOISY, STRONG)  # the order of the report
# One human view with and without a view that is another picture's half of the time.
TRUST = (Regime("one view", (("strong-0",),)), Regime("one view and a bad one", (("strong-0", "bad"),)))


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is run."""

    seeds: int = 5
    draws: int = photos_corpus.DRAWS
    tried: int = len(GRID)  # settings of each grid
    groups: tuple[tuple[str, ...], ...] = (tuple(MAIN), tuple(PARTS))
    regimes: tuple[Regime, ...] = (STRONG, NOISY)
    trust: bool = True
    steps: int = 0  # of every run, in place of the grid's; for tests


QUICK = Plan(seeds=2, draws=1, tried=1, groups=(("corrected", "towers on descriptions", "joint"),), trust=False)


@dataclasses.dataclass(frozen=True)
class Run:
    """A model trained on one draw of a regime with one seed."""

    regime: Regime
    draw: int
    arm: str
    seed: int
    chosen: tuple[str, ...]  # of the arm's grid

    @property
    def key(self) -> tuple[Any, ...]:
        """Its FIELDS."""
        return self.regime.name, self.draw, self.arm, self.seed, self.settings

    @property
    def settings(self) -> tuple[str, ...]:
        """Everything but the seed that differs from the recipe."""
        views = self.regime.draws[self.draw]
        names = {"first": views[0], "views": ",".join(views)}
        chosen = (setting.format(**names) for setting in self.chosen)
        return (*TARGETS, *self.regime.settings(self.draw), *ARMS[self.arm].settings, *chosen)


FIELDS = ("regime", "draw", "arm", "seed", "settings")  # what tells a line from others


class Runs:
    """The finished runs in OUTPUT/runs.jsonl, and the way to carry out another.

    Args:
        output: Folder of the runs.
        corpus: The corpus.
        plan: What is run.
    """

    def __init__(self, output: Path, corpus: Path, plan: Plan):
        self.output, self.corpus, self.plan = output, corpus, plan
        self.path = output / "runs.jsonl"
        output.mkdir(parents=True, exist_ok=True)
        text = self.path.read_text("utf-8") if self.path.exists() else ""
        if text and not text.endswith("\n"):  # a kill cut the last line off
            text = text[: text.rfind("\n") + 1]
            self.path.write_text(text, "utf-8")
        self.lines = [json.loads(line) for line in text.splitlines()]

    def find(self, key: Sequence[Any]) -> dict[str, Any] | None:
        """The line of a run, if it is finished."""
        fields = dict(zip(FIELDS, json.loads(json.dumps(key)), strict=True))
        return next((line for line in self.lines if fields.items() <= line.items()), None)

    def add(self, key: Sequence[Any], chosen: Sequence[str], scores: Mapping[str, Any], began: float) -> dict[str, Any]:
        """Keep a finished run; `chosen` are its settings of the arm's grid."""
        line = dict(zip(FIELDS, key, strict=True))
        line |= {
            "chosen": list(chosen),
            "scores": scores,
            "seconds": round(time.monotonic() - began),
            "commit": commit(),
        }
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(f"{json.dumps(line, ensure_ascii=False)}\n")
        self.lines.append(json.loads(json.dumps(line)))
        figures = [
            f"{row} {name} {of['sum_r']:.1f}"
            for row, score in scores.items()
            for name, of in score["languages"].items()
        ]
        print(f"{' · '.join(map(str, key[:4]))}: {', '.join(figures)} ({line['seconds']} s)", flush=True)
        return line

    def vectors(self, run: Run) -> Path:
        """Where the vectors of a run are kept for pairs."""
        return self.output / "vectors" / f"{short_hash(canonical_json(run.key))}.pt"

    def ensure(self, run: Run) -> dict[str, Any]:
        """The line of a run, which is carried out if it is missing."""
        if line := self.find(run.key):
            return line
        began, arm = time.monotonic(), ARMS[run.arm]
        vectors, bare = self.train(run)
        scores = {row: score(*(bare if how == "bare" else vectors), how) for row, how in arm.rows.items()}
        if arm.paired:
            save_vectors(self.vectors(run), *vectors)
        return self.add(run.key, run.chosen, scores, began)

    def train(self, run: Run) -> tuple[Any, Any]:
        """Train a model and embed val and test with it, with and without descriptions; its folder is deleted."""
        from stages import train

        folder = self.output / "run"
        settings = [*run.settings, f"seed={run.seed}", *([f"steps={self.plan.steps}"] if self.plan.steps else [])]
        steps = int(next(text for text in reversed(settings) if text.startswith("steps=")).partition("=")[2])
        settings += [f"validate_every={max(1, steps // 2)}", "global_weights=.3,.5,.7"]  # only to choose the step
        with quiet(self.output / "log.txt"):
            train.main(
                ["--recipe", "photos", "--data", str(self.corpus), "--output", str(folder), "--overwrite", *settings]
            )
            views = run.regime.draws[run.draw]
            vectors = embed(str(folder), self.corpus, views)
            bare = embed(str(folder), self.corpus, views, True) if "bare" in ARMS[run.arm].rows.values() else None
        shutil.rmtree(folder)
        return vectors, bare

    def ensure_untrained(self, regime: Regime, draw: int) -> None:
        """Keep the scores of the encoders in the wheel, which need no training."""
        key = regime.name, draw, "embedded", 0, ()
        if not self.find(key):
            began = time.monotonic()
            with quiet(self.output / "log.txt"):
                val, test = embed("embedded", self.corpus, regime.draws[draw])
            self.add(key, (), {row: score(val, test, how) for row, how in UNTRAINED.items()}, began)

    def ensure_pair(self, first: Run, second: Run) -> None:
        """Keep the scores of two seeds of an arm, fused."""
        key = (first.regime.name, first.draw, f"two of {first.arm}", first.seed, first.settings)
        paths = [self.vectors(run) for run in (first, second)]
        if not self.find(key) and all(path.exists() for path in paths):
            began = time.monotonic()
            val, test = (concatenate(*pair) for pair in zip(*map(load_vectors, paths), strict=True))
            hows = {row: how for row, how in ARMS[first.arm].rows.items() if how != "bare"}
            rows = {f"two of {row}": score(val, test, how) for row, how in hows.items()}
            self.add(key, first.chosen, rows, began)

    def choose(self, regime: Regime, arm: str) -> tuple[str, ...]:
        """The setting of an arm's grid with the best score on val, all tried with seed 0 on the first draw."""
        if not ARMS[arm].grid:
            return self.choose(regime, photos_report.METHOD)
        row = list(ARMS[arm].rows)[-1]
        tried = ARMS[arm].grid[: self.plan.tried]
        return max(tried, key=lambda chosen: self.ensure(Run(regime, 0, arm, 0, chosen))["scores"][row]["val"])

    def study(self) -> None:
        """Carry out the plan: the main arms first, seed by seed, so that a stopped bench compares like with like."""
        for group in self.plan.groups:
            for seed in range(self.plan.seeds):
                for regime in self.plan.regimes:
                    for draw in range(min(self.plan.draws, len(regime.draws))):
                        for arm in group:
                            runs = [Run(regime, draw, arm, n, self.choose(regime, arm)) for n in (seed - 1, seed)]
                            self.ensure(runs[1])
                            if seed and ARMS[arm].paired:
                                self.ensure_pair(*runs)
                        self.ensure_untrained(regime, draw)
        trust = self.plan.trust and STRONG in self.plan.regimes
        for seed in range(self.plan.seeds if trust else 0):
            for regime in TRUST:
                self.ensure(Run(regime, 0, "corrected", seed, self.choose(STRONG, "corrected")))


@contextlib.contextmanager
def quiet(log: Path) -> Iterator[None]:
    """Write what programs print to a file."""
    with contextlib.ExitStack() as stack:
        stream = stack.enter_context(log.open("w", encoding="utf-8"))
        stack.enter_context(contextlib.redirect_stdout(stream))
        stack.enter_context(contextlib.redirect_stderr(stream))
        yield


# How vectors are made and scores chosen: the only calls into the project's scoring.


def embed(checkpoint: str, corpus: Path, views: Sequence[str], bare: bool = False) -> tuple[Any, ...]:
    """The splits val and test as vectors of a checkpoint, with a slot per view; `bare`: as if there were none."""
    from stages.data.batches import EvaluationData
    from stages.processes import accelerated
    from stages.scoring.checkpoint import find_checkpoint
    from stages.scoring.embed import embed_split

    model, processor, _ = find_checkpoint(checkpoint).load()
    accelerator = accelerated("no")
    embedded = []
    for split in ("val", "test"):
        data = EvaluationData([corpus], split, LANGUAGES, views)
        data.expect(processor, "the model")
        data.use_stored(model, processor)
        if bare:
            data.load_items = without_descriptions(data.load_items)  # type: ignore[method-assign]
        vectors = embed_split(model, processor, data, accelerator, 500)
        embedded.append(vectors if vectors.slots_NKE.shape[1] else with_views(vectors, model, processor, data))
    return tuple(embedded)


def without_descriptions(load_items: Callable[..., tuple[Any, Any]]) -> Callable[..., tuple[Any, Any]]:
    """The same function with every description absent."""

    def load(*given: Any) -> tuple[Any, Any]:
        media, descriptions = load_items(*given)
        return media, descriptions._replace(mask=torch.zeros_like(descriptions.mask))

    import torch

    return load


def with_views(embedded: Any, model: Any, processor: Any, data: Any) -> Any:
    """The vectors of two towers with those of the descriptions, as the text tower has them: for late fusion."""
    import torch

    from model.batch import Texts

    vectors = []
    for start in range(0, len(data.places), 500):
        rows = range(start, min(start + 500, len(data.places)))
        tokens, mask = data.load_items(rows, processor)[1]
        if tokens.dim() == 3:  # summaries that are stored with the corpus
            tokens, mask = tokens[:, :, None], mask[:, :, None]
        with torch.no_grad():
            views = model.encode_text(Texts(tokens.flatten(0, 1), mask.flatten(0, 1)))
        vectors.append((views * mask.flatten(0, 1).any(1, keepdim=True)).unflatten(0, mask.shape[:2]))
    return dataclasses.replace(embedded, slots_NKE=torch.cat(vectors), views=data.slot_views)


def score(val: Any, test: Any, how: str) -> dict[str, Any]:
    """Score test by what is best on val.

    Args:
        val: The split as vectors.
        test: The split as vectors.
        how: "global": only the item's vector; "bare": the same without descriptions; "fused": with its views,
            their weight and pooling chosen on val; "descriptions": only the mean of the views.
    """
    from stages.scoring.fusion import GLOBAL_WEIGHTS, choose_fusion

    weights = {"global": (1.0,), "bare": (1.0,), "fused": GLOBAL_WEIGHTS, "descriptions": (0.0,)}[how]
    fusion = choose_fusion(val, weights, **({"poolings": ("mean",)} if how == "descriptions" else {}))
    on_val, on_test = (rank_split(split.fused(fusion), fusion.global_weight) for split in (val, test))
    return {
        "val": sum(of["sum_r"] for of in on_val.values()) / len(on_val),
        "weight": fusion.global_weight,
        "pooling": fusion.pooling,
        "view_weights": dict(fusion.view_weights),
        "languages": on_test,
    }


def rank_split(fused: Any, weight: float) -> dict[str, dict[str, Any]]:
    """SumR of each language, and the hits of each picture."""
    from stages.scoring.metrics import recalls_both
    from stages.scoring.report import rank_languages

    languages = {}
    for name, ranks in rank_languages(fused, weight).items():
        to_media, to_text = ranks.ranked.text_to_media.numpy(), ranks.ranked.media_to_text.numpy()
        hits = photos_report.encode_hits(to_media, ranks.text_items, to_text, ranks.media_items)
        languages[name] = {"sum_r": recalls_both(to_media, to_text)["sum_r"], **hits}
    return languages


def concatenate(first: Any, second: Any) -> Any:
    """Two models as one: the similarity of the vectors is the mean of both models' similarities."""
    import torch

    def joined(left: Any, right: Any) -> Any:
        return torch.cat([left, right], -1).float() / 2**0.5

    texts = {name: (joined(vectors, second.texts[name][0]), items) for name, (vectors, items) in first.texts.items()}
    return dataclasses.replace(
        first,
        media_NE=joined(first.media_NE, second.media_NE),
        slots_NKE=joined(first.slots_NKE, second.slots_NKE),
        texts=texts,
    )


def save_vectors(path: Path, *embedded: Any) -> None:
    """Keep vectors in half the space."""
    import torch

    path.parent.mkdir(exist_ok=True)
    torch.save(
        [
            (
                split.item_ids,
                split.media_NE.half(),
                split.slots_NKE.half(),
                {name: (vectors.half(), items) for name, (vectors, items) in split.texts.items()},
                split.views,
            )
            for split in embedded
        ],
        path,
    )


def load_vectors(path: Path) -> list[Any]:
    """What `save_vectors` kept."""
    import torch

    from stages.scoring.embed import Embedded

    return [Embedded(*split) for split in torch.load(path, weights_only=True)]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="Flickr8k, see bench/photos_corpus.py")
    parser.add_argument("--output", type=Path, default=Path("photos"), help="folder of corpus and runs (photos)")
    parser.add_argument("--quick", action="store_true", help="two seeds of the main arms, one setting each")
    parser.add_argument("--seeds", type=int, help="seeds of each arm")
    parser.add_argument("--tried", type=int, help="settings tried for each arm")
    parser.add_argument("--regimes", nargs="+", choices=("strong", "noisy"), help="only these")
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
    runs = Runs(options.output, corpus, plan)
    if not options.report:
        runs.study()
    names = ([regime.name for regime in regimes] for regimes in (REGIMES, TRUST))
    print(photos_report.report(runs.lines, SIMPLE_ROWS, *names))


if __name__ == "__main__":
    main()

"""What benches of the method share: arms trained over seeds, with settings chosen on val, scored next to each other.

A study is a `Bench` with its own arms, corpora and order of runs. A finished run is a line of OUTPUT/runs.jsonl and is
not repeated. Settings are tried with the first seed and chosen on val, as many for each arm; late fusion is chosen on
val for each run; scores are of test.
"""

import contextlib
import dataclasses
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.common import ROOT
from pipeline.hashing import canonical_json, short_hash

Line = Mapping[str, Any]
METHOD, PAIR = "corrected", "two of "
SIMPLE, DESCRIBED = "simple", "described"  # not trained, or trained, on queries and descriptions
UNTRAINED = {"zero-shot embedded": "global", "zero-shot, late fusion": "fused", "descriptions only": "descriptions"}
FIELDS = ("regime", "draw", "arm", "seed", "settings")  # what tells a line from others


@dataclasses.dataclass(frozen=True)
class Arm:
    """A model to train.

    Attributes:
        settings: What differs from the recipe.
        rows: The rows of the table that it gives, and how the score of each is made up: see `score`. The best setting
            is chosen by the last.
        kind: SIMPLE or DESCRIBED.
        grid: The settings to try; those of `corrected` are taken, not tried again, if there are none.
        paired: Whether two seeds are also fused.
        views: The only views that it reads; none: all.
    """

    settings: tuple[str, ...]
    rows: Mapping[str, str]
    kind: str = DESCRIBED
    grid: tuple[tuple[str, ...], ...] = ()
    paired: bool = False
    views: tuple[str, ...] = ()


def simple_rows(arms: Mapping[str, Arm]) -> tuple[str, ...]:
    """Rows of what is not trained on queries and descriptions."""
    return (*UNTRAINED, *(row for arm in arms.values() if arm.kind == SIMPLE for row in arm.rows))


@dataclasses.dataclass(frozen=True)
class Regime:
    """Descriptions of one kind; `draws` are those that differ only by chance."""

    name: str
    draws: tuple[tuple[str, ...], ...]  # views of each


@dataclasses.dataclass(frozen=True)
class Run:
    """A model trained on one draw of a regime with one seed."""

    regime: Regime
    draw: int
    arm: str
    seed: int
    chosen: tuple[str, ...]  # of the arm's grid


class Bench:
    """The finished runs in OUTPUT/runs.jsonl, and the way to carry out another.

    Args:
        output: Folder of the runs.
        arms: The arms by name.
        tried: How many settings of each grid are tried; none: all.
        steps: Length of every run, in place of the grid's; 0: that of the grid. For tests.
    """

    recipe: str
    languages: tuple[str, ...]  # of the queries
    common: tuple[str, ...] = ()  # settings of every arm
    validations = 2  # in each run, to choose the step
    first_seed = 0

    def __init__(self, output: Path, arms: Mapping[str, Arm], tried: int | None = None, steps: int = 0):
        self.output, self.arms, self.tried, self.steps = output, arms, tried, steps
        self.work = output  # folder of the run in progress
        self.path = output / "runs.jsonl"
        output.mkdir(parents=True, exist_ok=True)
        text = self.path.read_text("utf-8") if self.path.exists() else ""
        if text and not text.endswith("\n"):  # a kill cut the last line off
            text = text[: text.rfind("\n") + 1]
            self.path.write_text(text, "utf-8")
        self.lines = [json.loads(line) for line in text.splitlines()]

    def corpus(self, regime: Regime, draw: int) -> Path:
        """The corpus with these descriptions."""
        raise NotImplementedError

    def details(self, ranks: Any) -> dict[str, Any]:
        """What is kept of the ranks of a language, next to SumR."""
        return {}

    def views(self, run: Run) -> tuple[str, ...]:
        """What the slots read."""
        return self.arms[run.arm].views or run.regime.draws[run.draw]

    def settings(self, run: Run) -> tuple[str, ...]:
        """Everything but the seed that differs from the recipe."""
        views = self.views(run)
        names = {"first": views[0], "views": ",".join(views)}
        own = self.arms[run.arm].settings
        fixed = {setting.partition("=")[0] for setting in own}
        chosen = (setting.format(**names) for setting in run.chosen if setting.partition("=")[0] not in fixed)
        return (*self.common, f"slot_views={names['views']}", *own, *chosen)

    def key(self, run: Run) -> tuple[Any, ...]:
        """Its FIELDS."""
        return run.regime.name, run.draw, run.arm, run.seed, self.settings(run)

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
        return self.output / "vectors" / f"{short_hash(canonical_json(self.key(run)))}.pt"

    def ensure(self, run: Run) -> dict[str, Any]:
        """The line of a run, which is carried out if it is missing."""
        if line := self.find(self.key(run)):
            return line
        began, arm = time.monotonic(), self.arms[run.arm]
        vectors, bare = self.train(run)
        scores = {row: self.score(bare if how == "bare" else vectors, how) for row, how in arm.rows.items()}
        if arm.paired:
            save_vectors(self.vectors(run), *vectors)
        return self.add(self.key(run), run.chosen, scores, began)

    def train(self, run: Run) -> tuple[Any, Any]:
        """Train a model and embed val and test with it, with and without descriptions; its folder is deleted."""
        from stages import train

        folder, corpus = self.work / f"run-{os.getpid()}", self.corpus(run.regime, run.draw)
        settings = [
            *self.settings(run),
            f"seed={self.first_seed + run.seed}",
            *([f"steps={self.steps}"] if self.steps else []),
        ]
        steps = int(next(text for text in reversed(settings) if text.startswith("steps=")).partition("=")[2])
        # these weights only choose the step
        settings += [f"validate_every={max(1, steps // self.validations)}", "global_weights=.3,.5,.7"]
        with quiet(self.work / f"log-{os.getpid()}.txt"):
            train.main(
                ["--recipe", self.recipe, "--data", str(corpus), "--output", str(folder), "--overwrite", *settings]
            )
            given = str(folder), corpus, self.languages, self.views(run)
            vectors = embed(*given)
            bare = embed(*given, bare=True) if "bare" in self.arms[run.arm].rows.values() else None
        shutil.rmtree(folder)
        return vectors, bare

    def ensure_untrained(self, regime: Regime, draw: int) -> None:
        """Keep the scores of the encoders in the wheel, which need no training."""
        key = regime.name, draw, "embedded", 0, ()
        if not self.find(key):
            began, views = time.monotonic(), self.views(Run(regime, draw, METHOD, 0, ()))
            with quiet(self.work / f"log-{os.getpid()}.txt"):
                split_vectors = embed("embedded", self.corpus(regime, draw), self.languages, views)
            self.add(key, (), {row: self.score(split_vectors, how) for row, how in UNTRAINED.items()}, began)

    def ensure_pair(self, first: Run, second: Run) -> None:
        """Keep the scores of two seeds of an arm, fused."""
        key = (first.regime.name, first.draw, f"{PAIR}{first.arm}", first.seed, self.settings(first))
        paths = [self.vectors(run) for run in (first, second)]
        if not self.find(key) and all(path.exists() for path in paths):
            began = time.monotonic()
            fused = tuple(concatenate(*pair) for pair in zip(*map(load_vectors, paths), strict=True))
            hows = {row: how for row, how in self.arms[first.arm].rows.items() if how != "bare"}
            rows = {f"{PAIR}{row}": self.score(fused, how) for row, how in hows.items()}
            self.add(key, first.chosen, rows, began)

    def choose(self, regime: Regime, arm: str) -> tuple[str, ...]:
        """The setting of an arm's grid with the best score on val, all tried with seed 0 on the first draw."""
        if not self.arms[arm].grid:
            return self.choose(regime, METHOD)
        row = list(self.arms[arm].rows)[-1]
        tried = self.arms[arm].grid[: self.tried]
        return max(tried, key=lambda chosen: self.ensure(Run(regime, 0, arm, 0, chosen))["scores"][row]["val"])

    def score(self, vectors: Sequence[Any], how: str) -> dict[str, Any]:
        """Score test by what is best on val.

        Args:
            vectors: Both splits as vectors, val first.
            how: "global": only the item's vector; "bare": the same without descriptions; "fused": with its views,
                their weight and pooling chosen on val; "descriptions": only the mean of the views.
        """
        from stages.scoring.fusion import GLOBAL_WEIGHTS, choose_fusion

        weights = {"global": (1.0,), "bare": (1.0,), "fused": GLOBAL_WEIGHTS, "descriptions": (0.0,)}[how]
        fusion = choose_fusion(vectors[0], weights, **({"poolings": ("mean",)} if how == "descriptions" else {}))
        on_val, on_test = (self.rank(split.fused(fusion), fusion.global_weight) for split in vectors)
        return {
            "val": sum(of["sum_r"] for of in on_val.values()) / len(on_val),
            "weight": fusion.global_weight,
            "pooling": fusion.pooling,
            "view_weights": dict(fusion.view_weights),
            "languages": on_test,
        }

    def rank(self, fused: Any, weight: float) -> dict[str, dict[str, Any]]:
        """SumR of each language, and the details."""
        from stages.scoring.metrics import recalls_both
        from stages.scoring.report import rank_languages

        return {
            name: {
                "sum_r": recalls_both(ranks.ranked.text_to_media.numpy(), ranks.ranked.media_to_text.numpy())["sum_r"],
                **self.details(ranks),
            }
            for name, ranks in rank_languages(fused, weight).items()
        }


@contextlib.contextmanager
def quiet(log: Path) -> Iterator[None]:
    """Write what programs print to a file."""
    with contextlib.ExitStack() as stack:
        stream = stack.enter_context(log.open("w", encoding="utf-8"))
        stack.enter_context(contextlib.redirect_stdout(stream))
        stack.enter_context(contextlib.redirect_stderr(stream))
        yield


def embed(
    checkpoint: str, corpus: Path, languages: Sequence[str], views: Sequence[str], bare: bool = False
) -> tuple[Any, ...]:
    """The splits val and test as vectors of a checkpoint, with a slot per view; `bare`: as if there were none."""
    from stages.data.batches import EvaluationData
    from stages.processes import accelerated
    from stages.scoring.checkpoint import find_checkpoint
    from stages.scoring.embed import embed_split

    model, processor, _ = find_checkpoint(checkpoint).load()
    accelerator = accelerated("no")
    embedded = []
    for split in ("val", "test"):
        data = EvaluationData([corpus], split, languages, views)
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


class Scores:
    """The scores of a regime: by row of the table, those of its draws and seeds with the chosen setting.

    What does not depend on a seed has one score for each draw.
    """

    def __init__(self, lines: Sequence[Line], regime: str):
        self.regime = regime
        own = [line for line in lines if line["regime"] == regime]
        by_arm: dict[str, list[Line]] = {}
        for line in own:
            by_arm.setdefault(line["arm"], []).append(line)
        chosen_by = {arm: _chosen(of_arm) for arm, of_arm in by_arm.items()}
        self.chosen: dict[str, list[str]] = {}
        self.runs: dict[str, dict[tuple[int, int | None], Line]] = {}
        for line in own:
            for row, score in line["scores"].items():
                if line["chosen"] == chosen_by.get(line["arm"].removeprefix(PAIR)):
                    self.chosen[row] = line["chosen"]
                    number = line["seed"] if line["settings"] else None
                    self.runs.setdefault(row, {})[line["draw"], number] = score

    def mean(self, row: str, language: str) -> float:
        """Mean SumR."""
        return float(np.mean([score["languages"][language]["sum_r"] for score in self.runs[row].values()]))

    def pairs(self, row: str, other: str) -> list[tuple[Line, Line]]:
        """Scores of both with the same draw and seed. What is not trained goes with every seed of its draw."""
        return paired(self.runs[row], self.runs[other])


def paired(
    runs: Mapping[tuple[int, int | None], Line], others: Mapping[tuple[int, int | None], Line]
) -> list[tuple[Line, Line]]:
    """Scores of the same draw and seed."""
    return [
        (score, other)
        for (draw, number), score in runs.items()
        if (other := others.get((draw, number)) or others.get((draw, None)))
    ]


def _chosen(lines: Sequence[Line]) -> list[str]:
    """The best on val of the settings that an arm tried with its first seed, by its last row."""
    first = min((line["draw"], line["seed"]) for line in lines)
    tried = [line for line in lines if (line["draw"], line["seed"]) == first]
    return list(max(tried, key=lambda line: list(line["scores"].values())[-1]["val"])["chosen"])


def commit() -> str:
    """The commit that is run."""
    command = ["git", "describe", "--always", "--dirty", "--exclude", "*"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip() or "unknown"

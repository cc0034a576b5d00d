"""What `score.py` compares: models as vectors of splits, each with its own late fusion or one chosen on a split."""

import copy
import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from model.fusion import Fusion
from pipeline.errors import UsageError
from pipeline.translation.choose import TranslatorOptions, choose_local
from pipeline.translation.translator import translate_texts
from stages.data.batches import EvaluationData
from stages.processes import on_main
from stages.scoring.baselines import DescribedTowers
from stages.scoring.checkpoint import TRANSLATE, Checkpoint, find_checkpoint
from stages.scoring.embed import Embedded, embed_split
from stages.scoring.fusion import choose_fusion
from stages.scoring.report import figures

ENGLISH = "en"
FUSE_ON = "val"  # the split to choose a late fusion on, unless another is given


class Splits:
    """Splits of corpora, each opened once.

    Args:
        corpora: Corpus folders.
        languages: Languages to score; empty for all that a split has.
        views: Views to read; empty for all.
        translator: Who translates queries to English, see `translated`.
        val_fraction: Share of split train that was split val in training, see `Shards`.
    """

    def __init__(
        self,
        corpora: Sequence[Path],
        languages: Sequence[str],
        views: Sequence[str],
        translator: str,
        val_fraction: float = 0.0,
    ):
        self.val_fraction = val_fraction
        self.corpora, self.languages, self.views, self.translator = corpora, languages, views, translator
        self._splits: dict[str, EvaluationData] = {}
        self._translated: dict[str, dict[str, tuple[list[str], Any]]] = {}

    def open(self, split: str) -> EvaluationData:
        """A split. Raises UsageError where there is none of the name."""
        if split not in self._splits:
            fraction = self.val_fraction if split == FUSE_ON else 0.0
            self._splits[split] = EvaluationData(self.corpora, split, self.languages, self.views, fraction)
        return self._splits[split]

    def default_to_fuse_on(self, split: str) -> str | None:
        """The split to choose a late fusion on for `split`: `val`, or None without it or without descriptions."""
        if not any(self.open(split).slot_views):
            return None
        try:
            self.open(FUSE_ON)
        except UsageError:
            return None
        return FUSE_ON

    def translated(self, split: str) -> dict[str, tuple[list[str], Any]]:
        """The texts of a split, by language with their items, those of other languages translated to English.

        Raises:
            UsageError: There is no translator for a language.
        """
        if split not in self._translated:
            texts = self.open(split).texts
            self._translated[split] = on_main(lambda: self._translate(texts))
        return self._translated[split]

    def _translate(self, texts: Mapping[str, tuple[list[str], Any]]) -> dict[str, tuple[list[str], Any]]:
        options = (
            TranslatorOptions() if self.translator == "embedded" else TranslatorOptions(mt_model=(self.translator,))
        )
        translated = {}
        for language, (strings, items) in texts.items():
            if language != ENGLISH:
                try:
                    translator = choose_local(options, language, [ENGLISH], lambda line: print(line, file=sys.stderr))
                except UsageError as error:
                    raise UsageError(f"--translate-queries {self.translator}: {error}") from error
                strings = translate_texts(translator[ENGLISH].load(), strings, language, ENGLISH)
            translated[language] = strings, items
        return translated


class Arm:
    """A model to score.

    Args:
        name: A checkpoint, see `find_checkpoint`, or `translate:` and a checkpoint.
        splits: The splits.
        accelerator: The ranks.
        batch_size: Items, or texts, encoded at once in each process.
        option: The option that named it, for messages.

    Attributes:
        fusion: The model's own late fusion; None for a dual encoder.
    """

    def __init__(self, name: str, splits: Splits, accelerator: Accelerator, batch_size: int, option: str):
        self.name, self.splits, self.accelerator, self.batch_size = name, splits, accelerator, batch_size
        self.option = option
        self.checkpoint: Checkpoint = find_checkpoint(name.removeprefix(TRANSLATE))
        self.model, self.processor, self.fusion = self.checkpoint.load()
        self.model.to(accelerator.device)
        self._data: dict[str, EvaluationData] = {}
        self._embedded: dict[str, Embedded] = {}

    def describe(self) -> None:
        """Let the text tower of a model without views of its own read descriptions, for late fusion."""
        if not self.model.slots_are_views:
            self.model = DescribedTowers(self.model)

    def data(self, split: str) -> EvaluationData:
        """The split as this model reads it."""
        if split not in self._data:
            data = copy.copy(self.splits.open(split))
            data.expect(self.processor, f"{self.option} {self.name}")
            if self.name.startswith(TRANSLATE):
                data.texts = self.splits.translated(split)
            else:
                data.use_stored(self.model, self.processor)
            self._data[split] = data
        return self._data[split]

    def embed(self, split: str) -> Embedded:
        """The split as vectors, encoded once; views are not fused."""
        if split not in self._embedded:
            data = self.data(split)
            self._embedded[split] = embed_split(self.model, self.processor, data, self.accelerator, self.batch_size)
        return self._embedded[split]

    def choose_fusion(self, split: str) -> Fusion:
        """The best late fusion on a split, the same on every rank."""
        embedded = self.embed(split)
        return on_main(lambda: choose_fusion(embedded))


def arm_row(name: str, fusion: Fusion | None, embedded: Embedded, result: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the comparison: SumR by language and their mean, with its interval.

    Args:
        name: Of the model.
        fusion: How its score is fused; None for the model without descriptions.
        embedded: The split as vectors, not fused.
        result: Its figures, see `report.figures`.
    """
    return {
        "name": name,
        "fusion": fusion and dataclasses.asdict(fusion),
        "score": score_text(embedded, fusion),
        "sum_r": {language: row["sum_r"] for language, row in result["languages"].items()},
        "mean": result["mean"]["sum_r"],
        "interval": result["mean"]["intervals"]["sum_r"],
        "intervals": {language: row["intervals"]["sum_r"] for language, row in result["languages"].items()},
    }


def score_text(embedded: Embedded, fusion: Fusion | None) -> str:
    """How a score is made of its parts, in words."""
    if fusion is None or fusion.global_weight == 1 or not embedded.slots_NKE.shape[1]:
        return "only global similarity"
    text = f"global weight {fusion.global_weight:g}"
    if not embedded.views:
        return text
    weights = ", ".join(f"{name} {weight:g}" for name, weight in fusion.view_weights.items())
    return f"{text}, {fusion.pooling} of views" + (f" ({weights})" if weights else "")


def without_descriptions(arm: Arm, split: str, seed: int) -> list[dict[str, Any]]:
    """The row of a model that reads descriptions, scored without them."""
    given = arm.splits
    views = arm.checkpoint.align_views(("none",))
    splits = Splits(given.corpora, given.languages, views, given.translator, given.val_fraction)
    bare = Arm(arm.name, splits, arm.accelerator, arm.batch_size, arm.option)
    return [{**row, "name": f"{arm.name}, no descriptions"} for row in score_arm(bare, split, None, seed)]


def score_arm(arm: Arm, split: str, fuse_on: str | None, seed: int) -> list[dict[str, Any]]:
    """Score a baseline without descriptions, and with late fusion where there is a split to choose it on.

    Args:
        arm: The model.
        split: Split to score.
        fuse_on: Split to choose the late fusion on; None for no late fusion.
        seed: Seed of the bootstrap.
    """
    if fuse_on:
        arm.describe()
    embedded = arm.embed(split)
    fusions: list[Fusion | None] = [None, arm.choose_fusion(fuse_on)] if fuse_on else [None]

    def score() -> list[dict[str, Any]]:
        rows = []
        for fusion in fusions:
            used = fusion or Fusion()
            try:
                result, _ = figures(embedded.fused(used), used.global_weight, seed)
            except ValueError as error:
                raise UsageError(f"{arm.option} {arm.name}: {error}") from error
            rows.append(arm_row(arm.name, fusion, embedded, result))
        return rows

    return on_main(score)


def format_arms(rows: Sequence[Mapping[str, Any]]) -> str:
    """The comparison as lines for the terminal."""
    names = [row["name"] + (", late fusion" if row["fusion"] else "") for row in rows]
    width = max(map(len, ("arm", *names)))
    languages = list(rows[0]["sum_r"])
    lines = [f"{'arm':<{width}}" + "".join(f"{name:>8}" for name in (*languages, "mean")) + "   95 % of SumR"]
    for name, row in zip(names, rows, strict=True):
        columns = "".join(f"{value:>8.1f}" for value in (*row["sum_r"].values(), row["mean"]))
        low, high = row["interval"]
        lines.append(f"{name:<{width}}{columns}   {low:.1f} to {high:.1f} · {row['score']}")
    return "\n".join(lines)

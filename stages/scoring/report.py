"""The report of a split: ranks, recalls with intervals, a table for the terminal, a row for every query.

N items · M texts · J languages
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from pipeline.storage.files import write_file
from stages.scoring import metrics
from stages.scoring.embed import Embedded
from stages.scoring.metrics import AT, DIRECTIONS, LEVEL, RESAMPLES, recalls_both
from stages.scoring.ranking import Ranked, ranked

HEADINGS = {"text_to_media": "text → media", "media_to_text": "media → text"}
QUERIES = pa.schema(
    [
        pa.field("language", pa.string(), nullable=False),  # of the texts
        pa.field("direction", pa.string(), nullable=False),  # "text_to_media" or "media_to_text"
        pa.field("query_id", pa.string(), nullable=False),  # caption_id, or item_id
        pa.field("item_id", pa.string(), nullable=False),  # whose media, or text, is the right answer
        pa.field("rank", pa.int64(), nullable=False),  # from 1, of the best right answer
        pa.field("score", pa.float64(), nullable=False),  # of that answer
    ]
)


@dataclasses.dataclass(frozen=True)
class LanguageRanks:
    """Ranks of a language's texts among the items that have one, and of those items among its texts."""

    text_items: np.ndarray  # [M] int64
    media_items: np.ndarray  # [N] int64
    ranked: Ranked


def rank_languages(embedded: Embedded, global_weight: float) -> dict[str, LanguageRanks]:
    """Rank every language of a split, each in the gallery of the items that have a text in it."""
    ranks = {}
    for language in embedded.texts:
        _, text_items, _, media_items, *_ = vectors = embedded.language(language)
        result = ranked(*vectors, global_weights=(global_weight,))[0]
        ranks[language] = LanguageRanks(text_items.numpy(), media_items.numpy(), result)
    return ranks


def rank_variance(
    embedded: Embedded, ranks: Mapping[str, LanguageRanks], global_weight: float
) -> dict[str, Any] | None:
    """Mean rank variance over languages, among the items that have a text in all of them.

    Where languages have other items, ranks are taken again in the gallery that they share.

    Returns:
        The value and the number of items; None for one language, or where no item has a text in all.
    """
    shared = embedded.item_ids.numpy()
    for language in ranks.values():
        shared = shared[np.isin(shared, language.media_items)]
    if len(ranks) < 2 or not len(shared):
        return None
    if any(len(language.media_items) != len(shared) for language in ranks.values()):
        ranks = rank_languages(embedded.only(torch.from_numpy(shared)), global_weight)
    by_language = {name: (of.ranked.text_to_media.numpy(), of.text_items) for name, of in ranks.items()}
    return {"value": metrics.mean_rank_variance(metrics.item_ranks(by_language, shared)), "items": len(shared)}


def figures(embedded: Embedded, global_weight: float, seed: int = 0) -> tuple[dict[str, Any], dict[str, LanguageRanks]]:
    """All figures of a split as the JSON report has them, and the ranks that they come from.

    Args:
        embedded: The split as vectors, fused.
        global_weight: Share of the global similarity in the score.
        seed: Seed of the bootstrap.

    Raises:
        ValueError: The vectors cannot be ranked: see `ranking.ranked`.
    """
    ranks = rank_languages(embedded, global_weight)
    all_items = embedded.item_ids.numpy()
    hits, languages = {}, {}
    for name, of in ranks.items():
        to_media, to_text = of.ranked.text_to_media.numpy(), of.ranked.media_to_text.numpy()
        hits[name] = metrics.count_hits(to_media, of.text_items, to_text, of.media_items, all_items)
        languages[name] = {
            **recalls_both(to_media, to_text),
            "median_rank": {"text_to_media": float(np.median(to_media)), "media_to_text": float(np.median(to_text))},
            "chance": metrics.chance_recalls(of.text_items),
            "items": len(of.media_items),
            "texts": len(of.text_items),
        }
    samples = metrics.resample(hits, RESAMPLES, seed)
    for name, row in languages.items():
        row["intervals"] = metrics.intervals(samples[name])
    chance = _mean([row["chance"] for row in languages.values()])
    return {
        "languages": languages,
        "mean": {**_mean(list(languages.values())), "intervals": metrics.intervals(samples["mean"]), "chance": chance},
        "mean_rank_variance": rank_variance(embedded, ranks, global_weight),
        "bootstrap": {"resamples": RESAMPLES, "seed": seed, "level": LEVEL, "unit": "items with all their texts"},
    }, ranks


def fold_figures(embedded: Embedded, global_weight: float, folds: int) -> dict[str, Any]:
    """Recalls as the mean over folds: so many galleries of consecutive items, each with its own texts.

    Five folds of the 5,000 test images of MSCOCO are its "1K" protocol.
    """
    rows: dict[str, list[dict[str, Any]]] = {}
    for item_ids in embedded.item_ids.tensor_split(folds):
        for name, of in rank_languages(embedded.only(item_ids), global_weight).items():
            both = recalls_both(of.ranked.text_to_media.numpy(), of.ranked.media_to_text.numpy())
            rows.setdefault(name, []).append(both)
    languages = {name: _mean(own) for name, own in rows.items()}
    return {"folds": folds, "languages": languages, "mean": _mean(list(languages.values()))}


def _mean(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Recalls and SumR, each row counting alike."""
    both = {way: {f"r{k}": float(np.mean([row[way][f"r{k}"] for row in rows])) for k in AT} for way in DIRECTIONS}
    return {**both, "sum_r": float(np.mean([row["sum_r"] for row in rows]))}


def gallery_notes(result: Mapping[str, Any], items: int) -> list[str]:
    """A note on every language whose figures are not comparable, because some items have no text in it."""
    return [
        f"{name}: {row['items']:,} of {items:,} items have a text, so its gallery is smaller and easier"
        for name, row in result["languages"].items()
        if row["items"] < items
    ]


def format_table(result: Mapping[str, Any], notes: Sequence[str] = ()) -> str:
    """The figures as lines for the terminal; chance is the mean over languages."""
    languages = result["languages"]
    width = max(len(name) for name in ("language", *languages))
    columns = "".join(f"{f'R@{k}':>7}" for k in AT) + f"{'MedR':>7}"
    there, back = (HEADINGS[way] for way in DIRECTIONS)
    lines = [
        f"{'':<{width}}   {there:<{len(columns)}}   {back}",
        f"{'language':<{width}}{columns}   {columns}{'SumR':>9}   95 % of SumR",
    ]
    for name, row in [*languages.items(), *([("mean", result["mean"])] if len(languages) > 1 else [])]:
        lines.append(_table_row(name, row, width))
    lines.append(_table_row("chance", result["mean"]["chance"], width))
    if variance := result["mean_rank_variance"]:
        lines.append(
            f"mean rank variance over languages: {variance['value']:,.1f} over {variance['items']:,} items "
            "(0: every language finds an item at the same rank)"
        )
    if folds := result.get("folds"):
        lines.append(f"mean of {folds['folds']} folds:")
        lines += [_table_row(name, row, width) for name, row in [*folds["languages"].items(), ("mean", folds["mean"])]]
    return "\n".join([*lines, *notes])


def _table_row(name: str, row: Mapping[str, Any], width: int) -> str:
    ways = []
    for way in DIRECTIONS:
        median = f"{row['median_rank'][way]:>7,.1f}" if "median_rank" in row else f"{'':>7}"
        ways.append("".join(f"{row[way][f'r{k}']:>7.1f}" for k in AT) + median)
    ends = "   {:.1f} to {:.1f}".format(*row["intervals"]["sum_r"]) if "intervals" in row else ""
    return f"{name:<{width}}{ways[0]}   {ways[1]}{row['sum_r']:>9.1f}{ends}"


def write_queries(
    path: Path,
    ranks: Mapping[str, LanguageRanks],
    item_names: Mapping[int, str],
    caption_ids: Mapping[str, Sequence[str]],
) -> None:
    """Write the rank of every query as Parquet: languages in order, texts before media.

    Args:
        path: The file.
        ranks: By language.
        item_names: The item_id of each item number.
        caption_ids: The caption_id of each text, by language.
    """
    tables = []
    for language, of in ranks.items():
        media = [item_names[number] for number in of.media_items.tolist()]
        texts = [item_names[number] for number in of.text_items.tolist()]
        for way, queries, items, places, scores in (
            ("text_to_media", caption_ids[language], texts, of.ranked.text_to_media, of.ranked.text_scores),
            ("media_to_text", media, media, of.ranked.media_to_text, of.ranked.media_scores),
        ):
            same = [[language] * len(items), [way] * len(items)]
            columns = [*same, list(queries), items, places.numpy(), scores.numpy()]
            arrays = [pa.array(column, field.type) for column, field in zip(columns, QUERIES, strict=True)]
            tables.append(pa.table(arrays, QUERIES))
    with write_file(path) as stream:
        pq.write_table(pa.concat_tables(tables), stream)

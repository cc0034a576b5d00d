"""What a split's vectors say: ranks, recalls with intervals, a table for the screen, a row for every query.

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

from pipeline.corpus.table import atomic_writer
from stages.scoring.embed import Embedded
from stages.scoring.intervals import RESAMPLES, count_hits, intervals, resample
from stages.scoring.metrics import AT, chance_recalls, item_ranks, mean_rank_variance, median_rank, recalls_both
from stages.scoring.ranking import Ranked, ranked

WAYS = ("text_to_media", "media_to_text")
SHOWN_WAYS = {"text_to_media": "text → media", "media_to_text": "media → text"}
QUERIES = pa.schema(
    [
        pa.field("language", pa.string(), nullable=False),  # of the texts
        pa.field("direction", pa.string(), nullable=False),  # "text_to_media" or "media_to_text"
        pa.field("query_id", pa.string(), nullable=False),  # caption_id, or item_id
        pa.field("item_id", pa.string(), nullable=False),  # whose media, or text, is the right answer
        pa.field("rank", pa.int64(), nullable=False),  # from 1, of the best right answer
        pa.field("score", pa.float64(), nullable=False),  # that it has
    ]
)


@dataclasses.dataclass(frozen=True)
class LanguageRanks:
    """A language's texts among the items that have one, and those items among its texts."""

    text_items: np.ndarray  # [M] int64
    media_items: np.ndarray  # [N] int64
    ranked: Ranked

    def recalls(self) -> dict[str, Any]:
        return recalls_both(self.ranked.text_to_media.numpy(), self.ranked.media_to_text.numpy())


def rank_languages(embedded: Embedded, global_weight: float) -> dict[str, LanguageRanks]:
    found = {}
    for language in embedded.texts:
        text_ME, text_items, media_NE, media_items, slots_NKE = embedded.language(language)
        one = ranked(text_ME, text_items, media_NE, media_items, slots_NKE, (global_weight,))[0]
        found[language] = LanguageRanks(text_items.numpy(), media_items.numpy(), one)
    return found


def rank_variance(
    embedded: Embedded, found: Mapping[str, LanguageRanks], global_weight: float
) -> dict[str, Any] | None:
    """Over languages, among the items that have a text in all of them; None for one language, or no such item.

    Where languages have other items, ranks are taken again in the gallery that they share.
    """
    shared = embedded.item_ids.numpy()
    for ranks in found.values():
        shared = shared[np.isin(shared, ranks.media_items)]
    if len(found) < 2 or not len(shared):
        return None
    if any(len(ranks.media_items) != len(shared) for ranks in found.values()):
        found = rank_languages(_only(embedded, shared), global_weight)
    by_language = {name: (ranks.ranked.text_to_media.numpy(), ranks.text_items) for name, ranks in found.items()}
    return {"value": mean_rank_variance(item_ranks(by_language, shared)), "items": len(shared)}


def _only(embedded: Embedded, item_ids: np.ndarray) -> Embedded:
    wanted = torch.from_numpy(item_ids)
    keep_N = torch.isin(embedded.item_ids, wanted)
    texts = {}
    for language, (text_ME, items_M) in embedded.texts.items():
        keep_M = torch.isin(items_M, wanted)
        texts[language] = text_ME[keep_M], items_M[keep_M]
    return Embedded(embedded.item_ids[keep_N], embedded.media_NE[keep_N], embedded.slots_NKE[keep_N], texts)


def figures(embedded: Embedded, global_weight: float, seed: int = 0) -> tuple[dict[str, Any], dict[str, LanguageRanks]]:
    """All figures as the JSON has them, and the ranks that they come from."""
    found = rank_languages(embedded, global_weight)
    all_items = embedded.item_ids.numpy()
    hits = {}
    languages = {}
    for name, ranks in found.items():
        there, back = ranks.ranked.text_to_media.numpy(), ranks.ranked.media_to_text.numpy()
        hits[name] = count_hits(there, ranks.text_items, back, ranks.media_items, all_items)
        languages[name] = {
            **ranks.recalls(),
            "median_rank": {way: median_rank(side) for way, side in zip(WAYS, (there, back), strict=True)},
            "chance": chance_recalls(ranks.text_items),
            "items": len(ranks.media_items),
            "texts": len(ranks.text_items),
        }
    samples = resample(hits, RESAMPLES, seed)
    for name, row in languages.items():
        row["intervals"] = intervals(samples[name])
    mean = {**mean_of(list(languages.values())), "intervals": intervals(samples["mean"])}
    return {
        "languages": languages,
        "mean": {**mean, "chance": mean_of([row["chance"] for row in languages.values()])},
        "mean_rank_variance": rank_variance(embedded, found, global_weight),
        "bootstrap": {"resamples": RESAMPLES, "seed": seed, "level": 0.95, "unit": "items with all their texts"},
    }, found


def mean_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Recalls and SumR, each language counting alike."""
    both = {way: {f"r{k}": float(np.mean([row[way][f"r{k}"] for row in rows])) for k in AT} for way in WAYS}
    return {**both, "sum_r": float(np.mean([row["sum_r"] for row in rows]))}


def table(result: Mapping[str, Any], notes: Sequence[str] = ()) -> str:
    """The figures as they stand on the screen; chance is the mean over languages."""
    languages = result["languages"]
    width = max(len(name) for name in ("language", *languages))
    heads = "".join(f"{f'R@{k}':>7}" for k in AT) + f"{'MedR':>7}"
    side = f"{{:<{len(heads)}}}"
    lines = [
        f"{'':<{width}}   {side.format(SHOWN_WAYS[WAYS[0]])}   {SHOWN_WAYS[WAYS[1]]}".rstrip(),
        f"{'language':<{width}}{heads}   {heads}{'SumR':>9}   95 % of SumR",
    ]
    for name, row in [*languages.items(), *([("mean", result["mean"])] if len(languages) > 1 else [])]:
        lines.append(_row(name, row, width))
    lines.append(_row("chance", result["mean"]["chance"], width))
    variance = result["mean_rank_variance"]
    if variance:
        told = f"{variance['value']:,.1f} over {variance['items']:,} items"
        lines.append(f"mean rank variance over languages: {told} (0: every language finds an item at the same rank)")
    return "\n".join([*lines, *notes])


def _row(name: str, row: Mapping[str, Any], width: int) -> str:
    ways = []
    for way in WAYS:
        median = f"{row['median_rank'][way]:>7,.1f}" if "median_rank" in row else f"{'':>7}"
        ways.append("".join(f"{row[way][f'r{k}']:>7.1f}" for k in AT) + median)
    ends = "   {:.1f} to {:.1f}".format(*row["intervals"]["sum_r"]) if "intervals" in row else ""
    return f"{name:<{width}}{ways[0]}   {ways[1]}{row['sum_r']:>9.1f}{ends}"


def write_queries(
    path: Path,
    found: Mapping[str, LanguageRanks],
    item_names: Mapping[int, str],
    text_names: Mapping[str, Sequence[str]],
) -> None:
    """A row a query, as Parquet: languages in order, texts before media."""
    parts = []
    for language, ranks in found.items():
        media = [item_names[number] for number in ranks.media_items.tolist()]
        texts = [item_names[number] for number in ranks.text_items.tolist()]
        for way, queries, items, places, scores in (
            (WAYS[0], text_names[language], texts, ranks.ranked.text_to_media, ranks.ranked.text_scores),
            (WAYS[1], media, media, ranks.ranked.media_to_text, ranks.ranked.media_scores),
        ):
            same = [[language] * len(items), [way] * len(items)]
            columns = [*same, list(queries), items, places.numpy(), scores.numpy()]
            parts.append(
                pa.table([pa.array(it, field.type) for it, field in zip(columns, QUERIES, strict=True)], QUERIES)
            )
    with atomic_writer(path) as stream:
        pq.write_table(pa.concat_tables(parts), stream)

"""The tables of bench/photos.py: means over draws and seeds, paired differences, and the lines that sum them up.

S resamples · N test pictures · 6 recalls
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bench import arms
from bench.arms import METHOD, PAIR, Line
from stages.scoring.metrics import LEVEL, RESAMPLES, Hits, count_hits, resample

JOINT = "joint"
WARNING = (
    "*Strong* and *noisy* use captions by people in place of an MLLM's descriptions: an upper bound, and no evidence "
    "about an MLLM. In *captioner*, the describer has learned from the same training pictures: the negative control."
)


def hits_by_picture(ranks: Any) -> dict[str, Any]:
    """The hits in the ranks of a language."""
    text_to_media, media_to_text = ranks.ranked.text_to_media.numpy(), ranks.ranked.media_to_text.numpy()
    return encode_hits(text_to_media, ranks.text_items, media_to_text, ranks.media_items)


def encode_hits(
    text_to_media: np.ndarray, text_items: np.ndarray, media_to_text: np.ndarray, media_items: np.ndarray
) -> dict[str, Any]:
    """Hits by picture, in the order of their ids, as text: a digit each, in a row for each of the six recalls.

    Returns:
        `hits`, six rows, and `queries`, two: texts and media of each picture.
    """
    counted = count_hits(text_to_media, text_items, media_to_text, media_items, np.unique(media_items))
    hits = ["".join(map(str, column.astype(int))) for column in counted.hits_N6.T]
    queries = ["".join(map(str, counted.queries_N6[:, column].astype(int))) for column in (0, 5)]
    return {"hits": hits, "queries": queries}


def decode_hits(score: Mapping[str, Any]) -> Hits:
    """What `encode_hits` wrote."""
    hits, (texts, media) = (
        np.array([list(map(int, row)) for row in score[name]], float) for name in ("hits", "queries")
    )
    return Hits(hits.T, np.stack([texts] * 3 + [media] * 3, axis=1))


class Difference(NamedTuple):
    """A difference of SumR and its 95 % interval over runs and test pictures."""

    mean: float
    low: float
    high: float
    runs: int

    def __str__(self) -> str:
        return f"{self.mean:+.1f} [{self.low:+.1f}, {self.high:+.1f}]"


class Scores(arms.Scores):
    """The scores of a regime."""

    def difference(self, row: str, other: str, language: str) -> Difference:
        """`row` less `other`."""
        return difference(self.pairs(row, other), language)

    def nearest(self, row: str, others: Sequence[str], language: str) -> str:
        """The one of `others` that `row` is the least ahead of, in the runs that both have."""

        def lead(other: str) -> float:
            pairs = self.pairs(row, other)
            return float(
                np.mean([a["languages"][language]["sum_r"] - b["languages"][language]["sum_r"] for a, b in pairs])
            )

        return min(others, key=lead)


def difference(pairs: Sequence[tuple[Line, Line]], language: str, seed: int = 0) -> Difference:
    """SumR of some runs less that of others, pair by pair; runs and test pictures are drawn again."""
    pairs = [(score["languages"][language], other["languages"][language]) for score, other in pairs]
    hits = {f"{side} {number}": decode_hits(pair[side]) for number, pair in enumerate(pairs) for side in (0, 1)}
    recalls = resample(hits, RESAMPLES, seed)
    by_run_SR = np.stack(
        [(recalls[f"0 {number}"] - recalls[f"1 {number}"]).sum(1) for number in range(len(pairs))], axis=1
    )
    drawn_SR = np.random.default_rng(seed).integers(0, len(pairs), by_run_SR.shape)
    means_S = np.take_along_axis(by_run_SR, drawn_SR, 1).mean(1)
    low, high = np.quantile(means_S, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    mean = np.mean([left["sum_r"] - right["sum_r"] for left, right in pairs])
    return Difference(float(mean), float(low), float(high), len(pairs))


def report(
    lines: Sequence[Line],
    simple: Sequence[str],
    regimes: Sequence[str],
    trust: Sequence[str] = (),
    references: Mapping[str, str] | None = None,
) -> str:
    """The tables in Markdown, then a line for each regime and language, the last regime last.

    Args:
        lines: The runs.
        simple: Rows of what is not trained on queries and descriptions.
        regimes: Regimes with a table.
        trust: A regime, and others that have one more view.
        references: What a row is compared with, where it is not METHOD.
    """
    parts, last_lines = [WARNING], list[str]()
    joint_lines = [line for regime in trust[1:] for line in trust_lines(Scores(lines, trust[0]), Scores(lines, regime))]
    for regime in (*trust, *regimes):
        scores = Scores(lines, regime)
        if scores.runs:
            parts += ["", f"### {regime}", "", *table(scores, simple, references or {})]
        if METHOD not in scores.runs or regime in trust:
            continue
        for language in ("en", "zh"):
            for prefix in ("", PAIR):
                method = f"{prefix}{METHOD}"
                if method not in scores.runs:
                    continue
                names = [f"{prefix}{row}" for row in simple]
                rivals = [row for row in names if row in scores.runs and scores.pairs(method, row)]
                if f"{prefix}{JOINT}" in scores.runs:
                    joint_lines.append(compare(scores, regime, language, method, f"{prefix}{JOINT}", ""))
                if rivals:
                    best = scores.nearest(method, rivals, language)
                    into = joint_lines if prefix else last_lines
                    into.append(compare(scores, regime, language, method, best, "best simple "))
            fused = [row for row in scores.runs if row.startswith(PAIR) and row.removeprefix(PAIR) in simple]
            if fused:
                best = scores.nearest(METHOD, fused, language)
                joint_lines.append(compare(scores, regime, language, METHOD, best, "best simple pair "))
    return "\n".join([*parts, "", *joint_lines, *last_lines])


def trust_lines(without: Scores, with_another: Scores) -> list[str]:
    """For each language, whether another view harms."""
    pairs = arms.paired(with_another.runs.get(METHOD, {}), without.runs.get(METHOD, {}))
    if not pairs:
        return []
    texts = []
    for language in ("en", "zh"):
        more, fewer = with_another.mean(METHOD, language), without.mean(METHOD, language)
        gap = difference(pairs, language)
        texts.append(
            f"photos trust {language}: {with_another.regime} {more:.1f}, {without.regime} {fewer:.1f}, difference {gap}"
        )
    return texts


def compare(scores: Scores, regime: str, language: str, row: str, other: str, label: str) -> str:
    """One line: both means and their difference."""
    gap = scores.difference(row, other, language)
    return (
        f"photos {regime} {language}: {row} {scores.mean(row, language):.1f}, "
        f"{label}{other} {scores.mean(other, language):.1f}, "
        f"difference {gap.mean:.1f} [{gap.low:.1f}, {gap.high:.1f}]"
    )


def table(scores: Scores, simple: Sequence[str], references: Mapping[str, str]) -> list[str]:
    """A row for each row of scores: its means, its reference less it, its runs, and what was chosen on val."""
    lines = [
        "| | zh | en | less it, zh | en | runs | chosen on val |",
        "| --- | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for row, runs in scores.runs.items():
        method = f"{PAIR}{METHOD}" if row.startswith(PAIR) else references.get(row, METHOD)
        name = f"**{row}**" if row == METHOD else f"{row} (simple)" if row in simple else row
        differences = ["", ""]
        if row != method and method in scores.runs:
            differences = [str(scores.difference(method, row, language)) for language in ("zh", "en")]
            differences[0] = f"{method}: {differences[0]}" if method in references.values() else differences[0]
        weights = sorted({score["weight"] for score in runs.values()})
        share = f"weight {' to '.join(f'{weight:g}' for weight in (weights[0], weights[-1])[: len(weights)])}"
        means = [f"{scores.mean(row, language):.1f}" for language in ("zh", "en")]
        chosen = [text.replace("{first}", "one").replace("{views}", "all") for text in scores.chosen[row]]
        cells = [name, *means, *differences, str(len(runs)), ", ".join([*chosen, share])]
        lines.append(f"| {' | '.join(cells)} |")
    return lines

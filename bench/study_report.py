"""The study's page: tables with means and intervals, differences seed by seed, two plots, and what they say."""

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from scipy.stats import t as student

from bench.common import machine

LEVEL = 0.95


class Estimate(NamedTuple):
    """A mean over seeds and half the width of its 95 % interval (Student's t); not a number for one seed."""

    mean: float
    half: float
    seeds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Estimate":
        count = len(values)
        if count < 2:
            return cls(values[0] if values else math.nan, math.nan, count)
        quantile = float(student.ppf((1 + LEVEL) / 2, count - 1))
        return cls(statistics.mean(values), quantile * statistics.stdev(values) / math.sqrt(count), count)

    def shown(self, sign: str = "") -> str:
        if not self.seeds:
            return "–"
        return f"{self.mean:{sign}.1f}" + ("" if math.isnan(self.half) else f" ± {self.half:.1f}")

    def verdict(self) -> str:
        """Of a difference."""
        if math.isnan(self.half):
            return "too few seeds to say"
        if abs(self.mean) <= self.half:
            return "no difference shown"
        return "helps" if self.mean > 0 else "hurts"


class Scores:
    """SumR by arm, noise, errors and seed."""

    def __init__(self, lines: Sequence[Mapping[str, Any]]):
        self.lines = lines
        self._sums = {(x["arm"], x["noise"], x["errors"], x["seed"]): x["sum_r"] for x in lines}

    def seeds(self, arm: str, noise: float, errors: float) -> list[int]:
        return sorted(seed for a, n, e, seed in self._sums if (a, n, e) == (arm, noise, errors))

    def mean(self, arm: str, noise: float, errors: float) -> Estimate:
        return Estimate.of([self._sums[arm, noise, errors, seed] for seed in self.seeds(arm, noise, errors)])

    def difference(self, arm: str, other: str, noise: float, errors: float) -> Estimate:
        """`arm` less `other`, over the seeds that both have."""
        both = [seed for seed in self.seeds(arm, noise, errors) if seed in self.seeds(other, noise, errors)]
        return Estimate.of(
            [self._sums[arm, noise, errors, seed] - self._sums[other, noise, errors, seed] for seed in both]
        )

    def levels(self, arm: str) -> list[tuple[float, float]]:
        """(errors, noise), in order."""
        return sorted({(errors, noise) for a, noise, errors, _ in self._sums if a == arm})


def write(
    output: Path,
    lines: Sequence[Mapping[str, Any]],
    parts: Sequence[str],
    whole: Sequence[str],
    middle: tuple[float, float],
    setup: str,
    unfinished: bool,
) -> None:
    """Write README.md, parts.png and noise.png into `output`.

    Args:
        output: The folder of the study.
        lines: Finished runs.
        parts: Arms that each add one thing to the one before.
        whole: A baseline, a rival and the method, compared at every level.
        middle: (noise, errors) at which the parts are compared.
        setup: What was run, in words.
        unfinished: Whether planned runs are missing.
    """
    scores = Scores(lines)
    output.mkdir(parents=True, exist_ok=True)
    page = [
        "# Which part contributes what",
        "",
        f"`python bench/study.py`; {setup}, {_commits(lines)}; written on {machine()}.",
        *(["", "**Unfinished: run the same command again to continue.**"] if unfinished else []),
        "",
        "`corrected` is here the paper's architecture without the faults of the released code (`slots=queries`), the "
        "default of 0.1.0. [The method](../method.md) describes today's default.",
        "The pictures are synthetic scenes and the noise is simulated, so what helps here may not help on photographs.",
        "Scores are SumR, at most 600: means over languages and seeds, with 95 % intervals over seeds (Student's t). A "
        "random order scores "
        f"{Estimate.of([line['chance'] for line in lines]).mean:.1f}.",
        "",
        "## Part by part",
        "",
        f"Translations with noise {middle[0]}, descriptions with errors {middle[1]}.",
        "",
        "![SumR part by part](parts.png)",
        "",
        *_parts_table(scores, parts, middle),
        "",
        "## By noise and errors",
        "",
        "![SumR over noise](noise.png)",
        "",
        *_levels_table(scores, whole),
        "",
        "## Conclusions",
        "",
        *_conclusions(scores, parts, whole, middle),
        "",
        *(["[The same with texts by real models](real.md).", ""] if (output / "real.md").exists() else []),
    ]  # fmt: skip
    (output / "README.md").write_text("\n".join(page), encoding="utf-8")
    _draw_parts(output / "parts.png", scores, parts, middle)
    _draw_levels(output / "noise.png", scores, whole)


def write_real(
    path: Path, lines: Sequence[Mapping[str, Any]], texts: Mapping[str, Any], whole: Sequence[str], written_on: str
) -> None:
    """Write the page of the real arm. `texts`: correctness of its texts and of simulated ones; `lines`: its runs."""
    captioner = texts["captioner"]
    steps = " and ".join(f"{count:,}" for count in captioner["steps"])
    page = [
        "# The study with texts by real models",
        "",
        f"`python bench/real_arm.py`; {_commits(lines)}; written on {written_on}.",
        "",
        f"`--stage captions` described the pictures with an Idefics3 of {captioner['parameters']:,} parameters, served "
        f"by vLLM and trained on {captioner['scenes']:,} other scenes for {captioner['minutes']:g} minutes ({steps} "
        "steps). `--stage translate` translated the captions with one Marian model per language. Scenes are drawn by a "
        "program, so the right texts are known.",
        "",
        "## Correctness of descriptions",
        "",
        "F1 of the words by view; in brackets, the share of descriptions that are exactly right.",
        "",
        *_rightness_table(texts["descriptions"]),
        "",
        "## Correctness of translations",
        "",
        "The same against the grammar's own sentences; for Chinese, F1 of the characters.",
        "",
        *_rightness_table(texts["translations"]),
        "",
        "## Scores",
        "",
        "SumR on test, mean over languages. All runs use one corpus; intervals are over training seeds.",
        "",
        *_real_table([{**line, "noise": 0, "errors": 0} for line in lines], whole),
        "",
    ]
    path.write_text("\n".join(page), encoding="utf-8")


def _rightness_table(found: Mapping[str, Mapping[str, Mapping[str, float]]]) -> list[str]:
    names = list(found["real"])
    rows = [f"| | {' | '.join(names)} |", f"| --- |{' ---: |' * len(names)}"]
    for level, by_name in found.items():
        cells = [f"{by_name[name]['words']:.1%} ({by_name[name]['exact']:.1%})" for name in names]
        rows.append(f"| {level} | {' | '.join(cells)} |")
    return rows


def _real_table(lines: Sequence[Mapping[str, Any]], whole: Sequence[str]) -> list[str]:
    scores, method = Scores(lines), whole[-1]
    rows = [f"| | SumR | {method} minus it | | seeds |", "| --- | ---: | ---: | --- | ---: |"]
    for arm in whole:
        mean, over = scores.mean(arm, 0, 0), scores.difference(method, arm, 0, 0)
        cells = ["", ""] if arm == method else [over.shown("+"), over.verdict()]
        rows.append(f"| {arm} | {mean.shown()} | {' | '.join(cells)} | {mean.seeds} |")
    return rows


def _commits(lines: Sequence[Mapping[str, Any]]) -> str:
    found = sorted({line["commit"] for line in lines})
    return f"at commit{'s' if len(found) > 1 else ''} {', '.join(found) or 'none'}"


def _parts_table(scores: Scores, parts: Sequence[str], middle: tuple[float, float]) -> list[str]:
    rows = [
        "| | SumR | over the row above | | over the first row | seeds |",
        "| --- | ---: | ---: | --- | ---: | ---: |",
    ]
    for number, arm in enumerate(parts):
        mean = scores.mean(arm, *middle)
        cells = ["", "", ""]
        if number:
            step = scores.difference(arm, parts[number - 1], *middle)
            cells = [step.shown("+"), step.verdict(), scores.difference(arm, parts[0], *middle).shown("+")]
        rows.append(f"| {arm} | {mean.shown()} | {' | '.join(cells)} | {mean.seeds} |")
    return rows


def _levels_table(scores: Scores, whole: Sequence[str]) -> list[str]:
    base, rival, method = whole
    rows = [
        f"| errors | noise | {base} | {rival} | {method} | {method} − {base} | {method} − {rival} | seeds |",
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for errors, noise in scores.levels(method):
        means = [scores.mean(arm, noise, errors) for arm in whole]
        over = [scores.difference(method, other, noise, errors).shown("+") for other in (base, rival)]
        cells = [*(mean.shown() for mean in means), *over, str(min(mean.seeds for mean in means))]
        rows.append(f"| {errors} | {noise} | {' | '.join(cells)} |")
    return rows


def _conclusions(scores: Scores, parts: Sequence[str], whole: Sequence[str], middle: tuple[float, float]) -> list[str]:
    """One sentence per comparison. A difference counts if its interval excludes zero."""
    said = []
    for before, arm in itertools.pairwise(parts):
        step = scores.difference(arm, before, *middle)
        if step.seeds:
            said.append(f"- {arm.removeprefix('+ ')}: {step.verdict()} ({step.shown('+')}).")
    base, rival, method = whole
    for other in (base, rival):
        for errors, noise in scores.levels(method):
            found = scores.difference(method, other, noise, errors)
            if found.seeds:
                where = f"noise {noise}, errors {errors}"
                said.append(f"- {method} over {other} at {where}: {found.verdict()} ({found.shown('+')}).")
    return said or ["Nothing yet."]


def _draw_parts(path: Path, scores: Scores, parts: Sequence[str], middle: tuple[float, float]) -> None:
    figure, axes = plt.subplots(figsize=(8, 0.55 * len(parts) + 1.2), layout="constrained")
    found = [scores.mean(arm, *middle) for arm in parts]
    places = range(len(parts))
    axes.barh(places, [x.mean for x in found], xerr=[_bar(x) for x in found], color="#4878a8", capsize=3)
    axes.set_yticks(places, parts)
    axes.invert_yaxis()
    axes.set_xlim(0, 10 + max((x.mean + _bar(x) for x in found if x.seeds), default=0.0))
    axes.set_xlabel("SumR on test, of 600; bars: 95 % over seeds")
    axes.grid(axis="x", alpha=0.3)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _draw_levels(path: Path, scores: Scores, whole: Sequence[str]) -> None:
    errors = sorted({errors for errors, _ in scores.levels(whole[-1])}) or [math.nan]
    figure, panels = plt.subplots(
        1, len(errors), figsize=(4.5 * len(errors) + 1, 4), sharey=True, squeeze=False, layout="constrained"
    )
    for axes, level in zip(panels[0], errors, strict=True):
        for arm, colour in zip(whole, ("#888888", "#c05020", "#2060a0"), strict=True):
            noises = [noise for e, noise in scores.levels(arm) if e == level]
            found = [scores.mean(arm, noise, level) for noise in noises]
            heights, bars = [x.mean for x in found], [_bar(x) for x in found]
            axes.errorbar(noises, heights, yerr=bars, label=arm, color=colour, marker="o", capsize=3)
        axes.set_title(f"descriptions with errors {level}")
        axes.set_xlabel("noise of the translations")
        axes.grid(alpha=0.3)
    panels[0][0].set_ylabel("SumR on test, of 600")
    panels[0][-1].legend()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _bar(estimate: Estimate) -> float:
    return 0.0 if math.isnan(estimate.half) else estimate.half

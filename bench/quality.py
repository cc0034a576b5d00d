"""What the rules catch and what they cost: faults planted in human translations (Multi30K, English to de, fr, cs).

python bench/quality.py                    figures, from test_2016_flickr and test_2018_flickr; status 1 at a bound missed
python bench/quality.py --choose           how thresholds were chosen, from a sample of train, never of test
python bench/quality.py --languages de     one language; Czech is the slow one
"""

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from bench.common import machine
from bench.faults import FAULTS, LANGUAGES, SPLITS, plant, read
from pipeline.quality.rules import RULES, thresholds
from pipeline.quality.scores import Judge, Pair, Verdict
from pipeline.quality.similarity import resolve_encoders

MAX_DROPPED = 0.02  # of human pairs, in all
BOUNDS = {
    "copied": 0.995, "empty": 0.995, "wrong language": 0.995, "looped": 0.95, "numeral": 0.90,
}  # fmt: skip
SHUFFLED = {"de": 0.98, "fr": 0.98}  # cs: the best that can be had

# Share of train's human pairs that a rule may drop: what --choose aims at. The other rules are set by what they mean.
BUDGETS = {"meaning": 0.008, "low_quality": 0.008, "too_short": 0.004, "too_long": 0.001, "wrong_language": 0.001}


def judged(judge: Judge, sources: Sequence[str], texts: Sequence[str], language: str) -> list[Verdict]:
    pairs = [Pair(source, text, "en", language) for source, text in zip(sources, texts, strict=True)]
    return judge.judge(pairs)


def share(verdicts: Sequence[Verdict]) -> float:
    """Share dropped: any rule fired at its default threshold."""
    return sum(bool(verdict.flags) for verdict in verdicts) / len(verdicts)


def figures(judge: Judge, texts: dict[str, list[str]], language: str, seed: int) -> list[str]:
    """Prints one language's table; returns the bounds missed."""
    generator = random.Random(seed)
    count = len(texts["en"])
    judged(judge, texts["en"][:8], texts[language][:8], language)  # loads what is loaded once
    began = time.monotonic()
    human = judged(judge, texts["en"], texts[language], language)
    rate = count / (time.monotonic() - began)
    planted = plant(texts, language, generator)
    encoder = judge.encoders[language] or "no encoder"
    print(f"\nen-{language}: {count:,} human pairs, {encoder}, {rate:,.0f} pairs/s judged")
    print(f"  {'fault':<16}{'pairs':>7}{'caught':>9}{'wanted':>9}   rules that fired")
    missed = []
    for fault in FAULTS:
        rows, faulty = zip(*planted[fault], strict=True)
        verdicts = judged(judge, [texts["en"][row] for row in rows], faulty, language)
        caught = share(verdicts)
        wanted = SHUFFLED.get(language) if fault == "shuffled" else BOUNDS.get(fault)
        told = f"{wanted:.1%}" if wanted else "best"
        print(f"  {fault:<16}{len(rows):>7,}{caught:>9.1%}{told:>9}   {shares(verdicts)}")
        if wanted and caught < wanted:
            missed.append(f"en-{language}: {fault} {caught:.1%}, wanted >= {wanted:.1%}")
    everyone = [verdict for verdict in human]
    dropped = share(everyone)
    print(f"  {'human, untouched':<16}{count:>7,}{dropped:>9.2%}{f'<={MAX_DROPPED:.0%}':>9}   {shares(everyone, 2)}")
    print(f"  {further_shuffled(judge, texts, language, generator)}")
    print(f"  quality, median: human {middle(human):.3f}, {', '.join(f'{name} {value:.3f}' for name, value in [])}".rstrip(", "))
    if dropped > MAX_DROPPED:
        missed.append(f"en-{language}: {dropped:.2%} of human pairs dropped, wanted <= {MAX_DROPPED:.0%}")
    return missed

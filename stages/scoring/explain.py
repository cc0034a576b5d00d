"""Explanations of single queries as an HTML page: what each query finds, and what the slots of those items say.

Slots that are views say what they are; learned slots are explained by what they attend to.

N items · M texts · K slots · V views · H heads · T tokens of a description · P patches, or frames
E shared width
"""

import base64
import io
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import torch
from PIL import Image

from model.batch import Media, Texts, to_device
from model.fusion import Fusion
from model.modeling import LeccrModel
from model.processing import LeccrProcessor, sentences, square
from pipeline.media.images import encode_jpeg
from pipeline.storage.files import write_file
from stages.data.batches import EvaluationData
from stages.scoring.embed import Embedded
from stages.scoring.ranking import TIE, pool_similarities
from stages.scoring.report import LanguageRanks

Shown = dict[str, Any]  # what explain.html shows of a query, a result, a view, a slot or a token
RESULTS = 5  # listed for each query
THUMBNAIL = 360  # pixels of a picture's longer side
OVERLAY_RGB = (255, 80, 0)


def choose_queries(ranks: Mapping[str, LanguageRanks], count: int) -> list[tuple[str, int]]:
    """Choose queries to explain, as (language, row of its texts), the same for the same ranks.

    Every language gets an equal share, half of it texts whose item ranks first, half texts whose item does not. Both
    are spread evenly, the latter by rank.
    """
    shares = [count // len(ranks) + (place < count % len(ranks)) for place in range(len(ranks))]
    queries = []
    for place, (language, share) in enumerate(zip(ranks, shares, strict=True)):
        rank_M = ranks[language].ranked.text_to_media.numpy()
        share = min(share, len(rank_M))
        first, missed = np.flatnonzero(rank_M == 1), np.flatnonzero(rank_M > 1)
        missed = missed[np.argsort(rank_M[missed], kind="stable")]
        num_missed = min(len(missed), max((share + place % 2) // 2, share - len(first)))
        for rows, number in ((first, share - num_missed), (missed, num_missed)):
            queries += [(language, int(rows[(2 * n + 1) * len(rows) // (2 * number)])) for n in range(number)]
    return queries


class Explainer:
    """Explains queries of an embedded split.

    Args:
        model: `LeccrModel`, or a baseline, whose queries are explained without slots.
        processor: The model's processor.
        data: The split.
        embedded: The split as vectors, not fused.
        ranks: Its ranks by language.
        fusion: How the score is made of its parts.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        data: EvaluationData,
        embedded: Embedded,
        ranks: Mapping[str, LanguageRanks],
        fusion: Fusion,
    ):
        self.model, self.processor, self.data = model, processor, data
        self.embedded, self.ranks, self.fusion = embedded.fused(fusion), ranks, fusion
        self.has_slots = bool(embedded.slots_NKE.shape[1])
        self.views, self.views_NVE = embedded.views, embedded.slots_NKE.double()
        self.rows = {number: row for row, number in enumerate(embedded.item_ids.tolist())}

    def explain(self, language: str, row: int) -> Shown:
        """Explain query `row` of a language.

        Returns:
            `language`, `caption_id`, `text`; `rank` of the right item in a `gallery` of so many; `results`, the first
            few, see `result`; `readings` of the right item and of a wrong first result, see `read`.
        """
        text_ME, items_M, media_NE, ids_N, slots_NKE, shares_NK = self.embedded.language(language)
        text_E, right_id = text_ME[row].double(), int(items_M[row])
        media_NE = media_NE.double()
        score_N = global_N = local_N = media_NE @ text_E
        if self.has_slots:
            log_shares = None if shares_NK is None else shares_NK.double().unbind(1)
            local_N = pool_similarities((slots_NKE.double() @ text_E).unbind(1), log_shares)
            score_N = torch.lerp(local_N, global_N, self.fusion.global_weight)
        tie = TIE * float(media_NE.norm(dim=1).max() * text_E.norm())
        order = torch.argsort(score_N - 2 * tie * (ids_N == right_id), descending=True, stable=True).tolist()
        right_rank, right_place = int(self.ranks[language].ranked.text_to_media[row]), ids_N.tolist().index(right_id)

        def result(place: int) -> Shown:
            rank = right_rank if place == right_place else order.index(place) + 1
            similarities = (float(global_N[place]), float(local_N[place])) if self.has_slots else None
            shown = {"rank": rank, "is_right": place == right_place, "similarities": similarities}
            return self.result(self.rows[int(ids_N[place])], text_E) | shown | {"score": float(score_N[place])}

        results = [result(place) for place in order[:RESULTS]]
        right = next((it for it in results if it["is_right"]), None) or result(right_place)
        read = [right] if results[0]["is_right"] else [right, results[0]]
        return {
            "language": language,
            "caption_id": self.data.caption_ids[language][row],
            "text": self.data.texts[language][0][row],
            "rank": right_rank,
            "gallery": len(ids_N),
            "results": results,
            "readings": [self.read(it, text_E) for it in read] if self.has_slots and not self.views else [],
        }

    def result(self, item: int, text_E: torch.Tensor) -> Shown:
        """An item of the split as a query finds it: its `views` with their similarity, weight and trust, if it has any.

        Trust, of the item's vector in a view, is None where the model does not read views.
        """
        frames, descriptions = self.data.items([item])
        views = []
        if self.views:
            trust_V = [None] * len(self.views)
            if isinstance(self.model, LeccrModel):
                trust_V = self._ask(self.model.trust, frames, self.processor.descriptions(descriptions))[0].tolist()
            columns = self.views, descriptions[0], (self.views_NVE[item] @ text_E).tolist(), trust_V
            views = [
                {"name": name, "text": text, "similarity": similarity, "trust": trust}
                | {"weight": self.fusion.view_weights.get(name, 1.0)}
                for name, text, similarity, trust in zip(*columns, strict=False)
                if text.strip()
            ]
        picture = data_url(frames[0][len(frames[0]) // 2])
        shown = {"row": item, "item_id": self.data.item_names[item], "frames": list(frames[0])}
        return shown | {"picture": picture, "views": views}

    def _ask(self, method: Callable[[Media, Texts], Any], frames: Sequence[Any], descriptions: Texts) -> Any:
        """What a method of the model returns for an item, in evaluation mode."""
        device = self.model.device
        self.model.train(False)
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            media = self.processor.media(frames)
            return method(to_device(media, device), to_device(descriptions, device))

    def read(self, result: Shown, text_E: torch.Tensor) -> Shown:
        """What the slots of an item attend to, means over the heads of the last layer.

        Returns:
            `result`; `tokens` of its description; `pictures`, its frames as the model sees them; `slots`, the one that
            matches the query best first: by token `token_weights`, which sum to less than 1, as the rest went to the
            begin and end tokens; by patch, row by row, or by frame `media_weights`, and an `overlay` of the patches'.
        """
        frames = result["frames"]
        views = self.data.items([result["row"]])[1][0]
        descriptions = self.processor.descriptions([views])
        slots_BKE, words_BHKT, media_BHKN = self._ask(self.model.attention, [frames], descriptions)
        tokens = split_tokens(self.processor, views, descriptions.mask.shape[-1])
        words_KT = words_BHKT[0].mean(0).cpu().numpy()[:, [token["place"] for token in tokens]]
        media_KP = visible_weights(frames, media_BHKN[0].mean(0).cpu().numpy())
        similarity_K = (slots_BKE[0].cpu().double() @ text_E).tolist()
        is_patches = len(frames) == 1 and isinstance(frames[0], Image.Image)
        slots = [
            {
                "number": k + 1,
                "similarity": similarity_K[k],
                "token_weights": words_KT[k].tolist(),
                "media_weights": media_KP[k].tolist(),
                "overlay": overlay_url(media_KP[k]) if is_patches else "",
            }
            for k in np.argsort(-np.array(similarity_K), kind="stable").tolist()
        ]
        cropped = is_patches and self.processor.policy.resize == "crop"
        pictures = [data_url(frame, cropped) for frame in frames]
        return {"result": result, "tokens": tokens, "pictures": pictures, "slots": slots}


def write_page(path: Path, explainer: Explainer, count: int) -> int:
    """Write the page about `count` queries, or all where there are fewer.

    Returns:
        How many queries it explains.
    """
    queries = choose_queries(explainer.ranks, count)
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string(Path(__file__).with_name("explain.html").read_text("utf-8"))
    page = template.generate(
        explanations=(explainer.explain(language, row) for language, row in queries),
        has_slots=explainer.has_slots,
        has_views=bool(explainer.views),
        is_leccr=isinstance(explainer.model, LeccrModel),
        fusion=explainer.fusion,
    )
    with write_file(path) as stream:
        for part in page:
            stream.write(part.encode())
    return len(queries)


def visible_weights(frames: Sequence[Any], media_KN: np.ndarray) -> np.ndarray:
    """The weights [K,P] of the visual tokens that can be shown.

    A picture's tokens are its summary, registers if the tower has any, and a square of patches row by row: the largest
    that fits. A video, or features, have one token for each frame.
    """
    if len(frames) > 1 or not isinstance(frames[0], Image.Image):
        return media_KN[:, : len(frames)]
    side = math.isqrt(media_KN.shape[1] - 1)
    return media_KN[:, media_KN.shape[1] - side * side :]


def split_tokens(processor: LeccrProcessor, views: Sequence[str], length: int) -> list[Shown]:
    """The tokens of a description whose views are read as `length` tokens each, without marks of beginning and end.

    Where the tower reads sentence vectors, each sentence is a token.

    Returns:
        Of each token its `text` with the space before it, its `view`, and its `place` on the axis T of all views.
    """
    is_embedded, tokens = processor.policy.kind == "embedded", []
    for view, text in enumerate(views):
        surfaces = [f"{part} " for part in sentences(text)] if is_embedded else processor.surfaces(text)
        for place, surface in enumerate(surfaces[:length] if text.strip() else []):
            if surface:
                tokens.append({"text": surface, "view": view, "place": view * length + place})
    return tokens


def data_url(frame: Any, cropped: bool = False) -> str:
    """A frame as a small JPEG in a data URL, empty for a feature vector; `cropped`: only the square in its middle."""
    if not isinstance(frame, Image.Image):
        return ""
    picture = frame.convert("RGB")
    if cropped:
        left, upper, right, lower = map(round, square(*picture.size))
        picture = picture.crop((left, upper, right, lower))
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    return f"data:image/jpeg;base64,{base64.b64encode(encode_jpeg(picture, 80)).decode()}"


def overlay_url(weights_P: np.ndarray) -> str:
    """A square PNG of one pixel a patch in a data URL, the more opaque the larger the weight."""
    side = math.isqrt(len(weights_P))
    rgba = np.empty((side, side, 4), np.uint8)
    rgba[..., :3] = OVERLAY_RGB
    rgba[..., 3] = np.rint(200 * weights_P / (weights_P.max() or 1)).reshape(side, side)
    stream = io.BytesIO()
    Image.fromarray(rgba).save(stream, "PNG")
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"

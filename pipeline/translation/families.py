"""The model families that CTranslate2 serves: their tokens, and how each is given the languages."""

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import UsageError
from pipeline.translation.checkpoints import one_line, require
from pipeline.translation.tags import model_tag

END = "</s>"


@dataclasses.dataclass(frozen=True)
class Family:
    """A model family.

    Attributes:
        spm: The sentencepiece files of source and target.
        tags: Pattern of the language tokens in the vocabulary.
        template: How these tokens are written around the language's code; see tags.model_tag.
        positions: Most tokens where the checkpoint's configuration does not say; None for no limit.
        license: Licence of the published models, where they share one.
    """

    spm: tuple[str, str]
    tags: str
    template: str
    positions: int | None
    license: str = ""


_BPE = ("sentencepiece.bpe.model",) * 2
MARIAN = Family(("source.spm", "target.spm"), r">>.+<<", ">>{}<<", 512)
NLLB = Family(_BPE, r"[a-z]{3}_[A-Z][a-z]{3}", "{}", 1024, "cc-by-nc-4.0")
M2M100 = Family(_BPE, r"__[a-z]{2,3}__", "__{}__", 1024, "mit")
MADLAD = Family(("spiece.model",) * 2, r"<2[A-Za-z_-]+>", "<2{}>", None, "apache-2.0")


def read_vocabulary(folder: Path) -> list[str]:
    """The source tokens of a converted model. Raises UsageError where its vocabulary cannot be read."""
    paths = [folder / f"{side}_vocabulary.{suffix}" for side in ("source", "shared") for suffix in ("json", "txt")]
    path = next(filter(Path.is_file, paths), folder / "shared_vocabulary.json")
    try:
        text = path.read_text(encoding="utf-8")
        tokens: list[str] = json.loads(text) if path.suffix == ".json" else text.split("\n")
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    return tokens


def family_of(vocabulary: Sequence[str]) -> Family:
    """The family of a converted model, by its language tokens."""
    families = (NLLB, M2M100, MADLAD)
    return next((f for f in families if any(re.fullmatch(f.tags, token) for token in vocabulary)), MARIAN)


class ModelTokenizer:
    """Text to tokens and back, for one converted model."""

    def __init__(self, folder: Path):
        vocabulary = read_vocabulary(folder)
        self.family = family_of(vocabulary)
        self.tags = [token for token in vocabulary if re.fullmatch(self.family.tags, token)]
        self._spm_source, self._spm_target = (_sentencepiece(folder / name) for name in self.family.spm)
        self._not_text = {*self.tags, END}

    def tag(self, language: str, option: str) -> str:
        """The model's own tag of a language. Raises UsageError that lists those it has."""
        tag = model_tag(language, self.tags, self.family.template)
        if tag is None:
            raise UsageError(f"{option}: this model does not have {language}. It has {', '.join(sorted(self.tags))}")
        return tag

    def encode(self, texts: Sequence[str], source: str, target: str) -> list[list[str]]:
        """Source tokens with the family's language tokens and the end of sentence."""
        prefix: list[str] = []
        if self.family in (NLLB, M2M100):
            prefix = [self.tag(source, "source language")]
        elif self.tags:
            tag = self.tag(target, "--languages")
            if self.family is MADLAD:  # its tag is part of the text, with a space after it
                texts = [f"{tag} {text}" for text in texts]
            else:
                prefix = [tag]
        return [[*prefix, *row, END] for row in self._spm_source.encode(list(texts), out_type=str)]

    def prefix(self, target: str) -> list[str]:
        """Tokens that the decoder must begin with."""
        return [self.tag(target, "--languages")] if self.family in (NLLB, M2M100) else []

    def decode(self, rows: Sequence[Sequence[str]]) -> list[str]:
        """Text of target tokens, without language tokens. Tokens that only the source side has keep their ▁ there."""
        if not rows:
            return []
        pieces = [[piece for piece in row if piece not in self._not_text] for row in rows]
        texts = (self._spm_target.decode(row) if row else "" for row in pieces)  # it takes an empty row for numbers
        return [" ".join(text.replace("▁", " ").split()) for text in texts]


def _sentencepiece(path: Path) -> Any:
    try:
        return require("sentencepiece").SentencePieceProcessor(str(path))
    except (RuntimeError, OSError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> UsageError:
    return UsageError(
        f"--mt-model: {path} cannot be read ({one_line(error)}): copy it from the checkpoint that was converted, or "
        "convert that again"
    )

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
MAX_LISTED = 60  # language tokens in a message


@dataclasses.dataclass(frozen=True)
class Family:
    """A model family.

    Attributes:
        name: For messages.
        spm: The sentencepiece files of source and target.
        tags: Pattern of the language tokens in the vocabulary.
        template: How these tokens are written around the language's code; see tags.model_tag.
        positions: Most tokens where the checkpoint's configuration does not say; None for no limit.
        license: Licence of the published models, where they share one.
    """

    name: str
    spm: tuple[str, str]
    tags: str
    template: str
    positions: int | None
    license: str = ""


_BPE = ("sentencepiece.bpe.model",) * 2
MARIAN = Family("marian", ("source.spm", "target.spm"), r">>.+<<", ">>{}<<", 512)
NLLB = Family("nllb", _BPE, r"[a-z]{3}_[A-Z][a-z]{3}", "{}", 1024, "cc-by-nc-4.0")
M2M100 = Family("m2m100", _BPE, r"__[a-z]{2,3}__", "__{}__", 1024, "mit")
MADLAD = Family("madlad", ("spiece.model",) * 2, r"<2[A-Za-z_-]+>", "<2{}>", None, "apache-2.0")


def read_vocabulary(folder: Path) -> list[str]:
    """The source tokens of a converted model. Raises UsageError where its vocabulary is missing or unreadable."""
    paths = [folder / f"{side}_vocabulary.{suffix}" for side in ("source", "shared") for suffix in ("json", "txt")]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise UsageError(
            f"--mt-model: {folder} has a model.bin but no vocabulary (shared_vocabulary.json or "
            "source_vocabulary.json): copy it from where the model was converted, or convert the checkpoint again"
        )
    try:
        text = path.read_text(encoding="utf-8")
        tokens: list[str] = json.loads(text) if path.suffix == ".json" else text.split("\n")
    except ValueError as error:
        raise UsageError(f"--mt-model: {path} cannot be read ({error}): convert the checkpoint again") from error
    return tokens


def family_of(folder: Path, vocabulary: Sequence[str]) -> Family:
    """The family of a converted model, by its language tokens. Raises UsageError where sentencepiece files miss."""
    for family in (NLLB, M2M100, MADLAD):
        if any(re.fullmatch(family.tags, token) for token in vocabulary):
            break
    else:
        family = MARIAN
    for name in family.spm:
        if not (folder / name).is_file():
            raise UsageError(
                f"--mt-model: {folder} has no {name}, the tokenizer of models of the family {family.name}: "
                "copy it from the checkpoint that was converted"
            )
    return family


class ModelTokenizer:
    """Text to tokens and back, for one converted model."""

    def __init__(self, folder: Path):
        vocabulary = read_vocabulary(folder)
        self.family = family_of(folder, vocabulary)
        self.tags = [token for token in vocabulary if re.fullmatch(self.family.tags, token)]
        self._spm_source, self._spm_target = (_sentencepiece(folder / name) for name in self.family.spm)
        self._not_text = {*self.tags, END}

    def tag(self, language: str, option: str) -> str:
        """The model's own tag of a language. Raises UsageError that lists those it has."""
        tag = model_tag(language, self.tags, self.family.template)
        if tag is None:
            more = f" and {len(self.tags) - MAX_LISTED} more" if len(self.tags) > MAX_LISTED else ""
            tags = ", ".join(sorted(self.tags)[:MAX_LISTED])
            raise UsageError(f"{option}: this model does not have {language}. It has {tags}{more}")
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
        return [" ".join(text.replace("▁", " ").split()) for text in self._spm_target.decode(pieces)]


def _sentencepiece(path: Path) -> Any:
    try:
        return require("sentencepiece").SentencePieceProcessor(str(path))
    except (RuntimeError, OSError) as error:
        raise UsageError(
            f"--mt-model: {path} is not a sentencepiece model ({one_line(error)}): copy it again from the original "
            "checkpoint"
        ) from error

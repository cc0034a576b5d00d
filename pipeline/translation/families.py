"""The model families that CTranslate2 serves: which tokens each wants, and how it is told the languages."""

import dataclasses
import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import UsageError
from pipeline.translation.tags import m2m_tag, madlad_tag, nllb_tag, opus_tag
from pipeline.translation.translator import need, one_line

END = "</s>"


@dataclasses.dataclass(frozen=True)
class Family:
    """`tags` matches the language tokens in the vocabulary; `spm` are the sentencepiece files, source and target.

    `positions` bounds the tokens where the checkpoint's configuration does not tell; None: no bound.
    """

    name: str
    spm: tuple[str, str]
    tags: str
    tag_of: Callable[[str, Iterable[str]], str | None]
    positions: int | None
    license: str = ""


MARIAN = Family("marian", ("source.spm", "target.spm"), r">>.+<<", opus_tag, 512)
_BPE = ("sentencepiece.bpe.model",) * 2
NLLB = Family("nllb", _BPE, r"[a-z]{3}_[A-Z][a-z]{3}", nllb_tag, 1024, "cc-by-nc-4.0")
M2M100 = Family("m2m100", _BPE, r"__[a-z]{2,3}__", m2m_tag, 1024, "mit")
MADLAD = Family("madlad", ("spiece.model",) * 2, r"<2[A-Za-z_-]+>", madlad_tag, None, "apache-2.0")
FAMILIES = (MARIAN, NLLB, M2M100, MADLAD)
SPM_FILES = ("source.spm", "target.spm", "sentencepiece.bpe.model", "spiece.model")


def vocabularies(folder: Path) -> tuple[list[str], list[str]]:
    """Source and target tokens of a converted model. Raises UsageError where the folder has none that can be read."""
    found = []
    for side in ("source", "target"):
        paths = [folder / f"{name}_vocabulary.{kind}" for name in (side, "shared") for kind in ("json", "txt")]
        path = next((path for path in paths if path.is_file()), None)
        if path is None:
            raise UsageError(
                f"--mt-model: {folder} has a model.bin but no vocabulary ({paths[2].name}, or {paths[0].name}): "
                "copy it from where the model was converted, or convert the checkpoint again"
            )
        try:
            text = path.read_text(encoding="utf-8")
            tokens = json.loads(text) if path.suffix == ".json" else text.split("\n")
        except ValueError as error:
            raise UsageError(f"--mt-model: {path} cannot be read ({error}): convert the checkpoint again") from error
        found.append(tokens)
    return found[0], found[1]


def family_of(folder: Path, vocabulary: Sequence[str]) -> Family:
    """The family of a converted model, told from its vocabulary and its sentencepiece files."""
    for family in (NLLB, M2M100, MADLAD):
        if any(re.fullmatch(family.tags, token) for token in vocabulary):
            break
    else:
        family = MARIAN
    for name in family.spm:
        if not (folder / name).is_file():
            raise UsageError(
                f"--mt-model: {folder} has no {name}, with which a model of the family {family.name} tokenizes: "
                "copy it from the checkpoint that was converted"
            )
    return family


class Tokens:
    """Text to tokens and back, for one converted model."""

    def __init__(self, folder: Path):
        source_vocabulary, _ = vocabularies(folder)
        self.family = family_of(folder, source_vocabulary)
        self.tags = [t for t in source_vocabulary if re.fullmatch(self.family.tags, t)]
        self._spm_source, self._spm_target = (_spm(folder / name) for name in self.family.spm)
        self._tags = set(self.tags)

    def tag(self, language: str, option: str) -> str:
        """The model's own tag of a language. Raises UsageError that lists those it has."""
        found = self.family.tag_of(language, self.tags)
        if found is None:
            raise UsageError(f"{option}: got {language}, which this model does not have. It has {listed(self.tags)}")
        return found

    def encode(self, texts: Sequence[str], source: str, target: str) -> list[list[str]]:
        """Source tokens as the family wants them, with its language tokens and the end of sentence."""
        before: list[str] = []
        if self.family in (NLLB, M2M100):
            before = [self.tag(source, "source language")]
        elif self.tags:
            tag = self.tag(target, "--languages")
            if self.family is MADLAD:  # whose tag is part of the text, with the space after it
                return [[*row, END] for row in self._spm_source.encode([f"{tag} {t}" for t in texts], out_type=str)]
            before = [tag]
        return [[*before, *row, END] for row in self._spm_source.encode(list(texts), out_type=str)]

    def prefix(self, target: str) -> list[str]:
        """Tokens that the decoder is made to begin with."""
        return [self.tag(target, "--languages")] if self.family in (NLLB, M2M100) else []

    def decode(self, rows: Sequence[Sequence[str]]) -> list[str]:
        """Text of target tokens; language tokens are left out. A token of the source side alone keeps its ▁ there."""
        kept = [[piece for piece in row if piece != END and piece not in self._tags] for row in rows]
        return [" ".join(text.replace("▁", " ").split()) for text in self._spm_target.decode(kept)] if kept else []


def _spm(path: Path) -> Any:
    try:
        return need("sentencepiece").SentencePieceProcessor(str(path))
    except (RuntimeError, OSError) as error:
        raise UsageError(
            f"--mt-model: {path} is no sentencepiece model ({one_line(error)}): "
            "copy it again from the original checkpoint"
        ) from error


def listed(tags: Sequence[str]) -> str:
    """Language tokens for an error's message."""
    return ", ".join(sorted(tags)[:60]) + (f" and {len(tags) - 60} more" if len(tags) > 60 else "")

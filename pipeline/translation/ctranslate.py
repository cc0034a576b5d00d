"""Marian/OPUS-MT, NLLB, M2M100 and MADLAD by CTranslate2."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import UsageError
from pipeline.translation import decoding
from pipeline.translation.checkpoints import CONVERTED, pair_of, positions
from pipeline.translation.families import END, Tokens
from pipeline.translation.tags import language_of
from pipeline.translation.translator import Result, Translated, Untranslated, need, one_line

# On a CPU, batches that stay in its caches: 512 tokens were a quarter faster than 4,096, with the same translations.
BATCH_TOKENS = {"cpu": 512, "cuda": 8192}


@dataclasses.dataclass(frozen=True)
class CTranslate2Translator:
    """A converted model in `folder`. `device` is cpu or cuda, `batch_tokens` counts the source's tokens, padded.

    `many_languages` tells that a language token chooses the direction; a model of one pair has none.
    """

    name: str
    revision: str
    license: str
    folder: str
    device: str = "cpu"
    compute_type: str = "int8"
    beam_size: int = 4
    batch_tokens: int = BATCH_TOKENS["cpu"]
    many_languages: bool = False

    @property
    def decoding(self) -> dict[str, Any]:
        return {
            "engine": "ctranslate2",
            "beam_size": self.beam_size,
            "compute_type": self.compute_type,
            "limit": decoding.LIMIT,
        }

    def check(self, source: str, targets: Sequence[str]) -> None:
        tokens = self.load().tokens
        check_pair(Path(self.folder), self.name, tokens.tags, source, targets)
        for target in targets:
            tokens.encode([], source, target)
            tokens.prefix(target)

    def load(self) -> "CTranslate2Engine":
        return CTranslate2Engine(self)


class CTranslate2Engine:
    def __init__(self, translator: CTranslate2Translator):
        folder = Path(translator.folder)
        self.tokens = Tokens(folder)
        self._model = _open(translator)
        self._settings = {
            "beam_size": translator.beam_size,
            "max_batch_size": translator.batch_tokens,
            "batch_type": "tokens",
            "max_input_length": 0,  # never cut: a source is at most decoding.MAX_SOURCE_TOKENS long
            "return_end_token": True,
            "disable_unk": True,
        }
        self.positions = positions(folder) or self.tokens.family.positions

    def translate(self, sentences: Sequence[str], source: str, target: str) -> list[Result]:
        return decoding.translate(self, sentences, source, target)

    def encode(self, texts: Sequence[str], source: str, target: str) -> list[list[str]]:
        return self.tokens.encode(texts, source, target)

    def generate(
        self, groups: Sequence[tuple[Sequence[list[str]], int]], target: str, careful: bool
    ) -> list[list[Result]]:
        # All groups are handed over before the first answer is awaited: no processor waits between two groups.
        waiting = [self._ask(rows, limit, target, careful) for rows, limit in groups]
        return [
            self._answers(rows, limit, target, careful, asked)
            for (rows, limit), asked in zip(groups, waiting, strict=True)
        ]

    def _ask(self, rows: Sequence[list[str]], limit: int, target: str, careful: bool) -> list[Any]:
        prefix = self.tokens.prefix(target)
        settings = dict(self._settings, max_decoding_length=limit)
        if prefix:
            settings["target_prefix"] = [prefix] * len(rows)
        if careful:
            settings["no_repeat_ngram_size"] = decoding.NO_REPEAT_NGRAM
            settings["repetition_penalty"] = decoding.REPETITION_PENALTY
        return self._model.translate_batch(list(rows), asynchronous=True, **settings)

    def _answers(
        self, rows: Sequence[list[str]], limit: int, target: str, careful: bool, asked: Sequence[Any]
    ) -> list[Result]:
        try:
            found = [each.result().hypotheses[0] for each in asked]
        except (RuntimeError, ValueError) as error:
            if len(rows) == 1:
                return [Untranslated("engine", one_line(error))]
            # One by one, so that what one sentence does to the engine is its own affair.
            alone = [
                self._answers([row], limit, target, careful, self._ask([row], limit, target, careful)) for row in rows
            ]
            return [result for results in alone for result in results]
        texts = self.tokens.decode(found)
        return [Translated(text, pieces[-1:] == [END]) for text, pieces in zip(texts, found, strict=True)]


def device_of(wanted: str) -> str:
    """`auto`: cuda where CTranslate2 sees a device. Raises UsageError where cuda is asked for and there is none."""
    seen = need("ctranslate2").get_cuda_device_count() if wanted != "cpu" else 0
    if wanted == "cuda" and not seen:
        raise UsageError("--mt-device cuda: CTranslate2 sees no CUDA device here: give --mt-device cpu, or auto")
    return "cuda" if seen else "cpu"


def compute_type_of(device: str) -> str:
    """8-bit weights, with 16-bit floats where the device computes with them."""
    wanted = "int8_float16" if device == "cuda" else "int8"
    supported = need("ctranslate2").get_supported_compute_types(device)
    return wanted if wanted in supported else "int8" if "int8" in supported else "float32"


def check_pair(folder: Path, name: str, tags: Sequence[str], source: str, targets: Sequence[str]) -> None:
    """Raises UsageError where a model is known to be of another pair. One with language tokens (`tags`) is of many."""
    if tags:
        return
    of_source, of_target = pair_of(folder, name)
    for side, has, wanted in (("source", of_source, [source]), ("target", of_target, targets)):
        # Two letters are a language; three may be a family of them, of which nothing can be said here.
        language = language_of(has) if has else ""
        others = [tag for tag in wanted if len(language) == 2 and language != language_of(tag)]
        if others:
            raise UsageError(
                f"--mt-model: {name} translates {of_source or '?'} to {of_target or '?'}, wanted {side} "
                f"language {', '.join(others)}: name a model by language, for example --mt-model {others[0]}=PATH"
            )
    if len({tag.split("-")[0] for tag in targets}) > 1:
        raise UsageError(
            f"--mt-model: {name} has no language tokens, so it translates to one language, wanted "
            f"{', '.join(targets)}: name a model for each, for example --mt-model {targets[0]}=PATH"
        )


def _open(translator: CTranslate2Translator) -> Any:
    threads = os.cpu_count() or 1
    try:
        return need("ctranslate2").Translator(
            translator.folder,
            device=translator.device,
            compute_type=translator.compute_type,
            inter_threads=threads if translator.device == "cpu" else 1,
            intra_threads=1,
        )
    except (RuntimeError, ValueError) as error:
        reason = one_line(error)
        raise UsageError(
            f"--mt-model: {Path(translator.folder) / CONVERTED} cannot be loaded ({reason}): convert or copy it again"
        ) from error

"""Marian/OPUS-MT, NLLB, M2M100 and MADLAD with CTranslate2.

Sentences are decoded in batches of like length with a limit in proportion to the source; a translation that loops or
does not end is decoded once more with repetition forbidden.
"""

import dataclasses
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pipeline.engine.stage import Run
from pipeline.errors import UsageError
from pipeline.translation.checkpoints import CONVERTED, language_pair, max_positions, one_line, require
from pipeline.translation.families import END, ModelTokenizer
from pipeline.translation.sentences import clean, halves
from pipeline.translation.tags import language_of
from pipeline.translation.translator import LocalBackend, Result, Translated, Untranslated, join_results

# On a CPU, batches that stay in its caches: 512 tokens were a quarter faster than 4,096, with the same translations.
BATCH_TOKENS = {"cpu": 512, "cuda": 8192}
BATCH_SEGMENTS = 1_024  # a few seconds' work
# A longer source is cut in two: models trained on sentences get worse beyond, and many have 512 positions.
MAX_SOURCE_TOKENS = 256
# The rule of token_limit, recorded in every row's decoding.
LIMIT = "2n+16 tokens, n = the source's tokens rounded up to 16, 32, 64 …"
# For the second decoding of a hypothesis that loops.
NO_REPEAT = {"no_repeat_ngram_size": 3, "repetition_penalty": 1.2}
# Thai, Lao, Burmese, Khmer, Japanese, Chinese.
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]")


@dataclasses.dataclass(frozen=True)
class CTranslate2Translator:
    """A converted model.

    Attributes:
        folder: Where it is.
        device: cpu or cuda.
        compute_type: CTranslate2's name of the type it computes with.
        batch_tokens: Source tokens per batch, padding included.
        multilingual: A language token chooses the direction; a model of one pair has none.
    """

    name: str
    revision: str
    license: str
    folder: str
    device: str = "cpu"
    compute_type: str = "int8"
    beam_size: int = 4
    batch_tokens: int = BATCH_TOKENS["cpu"]
    multilingual: bool = False

    @property
    def decoding(self) -> dict[str, Any]:
        """Recorded in every row."""
        settings = {"beam_size": self.beam_size, "compute_type": self.compute_type}
        return {"engine": "ctranslate2", **settings, "limit": LIMIT}

    def check(self, source: str, targets: Sequence[str]) -> None:
        """Raise UsageError where the model cannot be loaded or does not translate `source` into each of `targets`."""
        tokenizer = self.load().tokenizer
        if not tokenizer.tags:
            _check_pair(Path(self.folder), self.name, source, targets)
        for target in targets:
            tokenizer.encode([], source, target)
            tokenizer.prefix(target)

    def open(self, run: Run) -> LocalBackend:
        """See Translator."""
        return LocalBackend(self.load, BATCH_SEGMENTS)

    def load(self) -> "CTranslate2Engine":
        """Load the model. Raises UsageError where its files cannot be used."""
        folder = Path(self.folder)
        tokenizer = ModelTokenizer(folder)
        threads = os.cpu_count() or 1
        try:
            model = require("ctranslate2").Translator(
                self.folder,
                device=self.device,
                compute_type=self.compute_type,
                inter_threads=threads if self.device == "cpu" else 1,
                intra_threads=1,
            )
        except (RuntimeError, ValueError) as error:
            raise UsageError(
                f"--mt-model: {folder / CONVERTED} cannot be loaded ({one_line(error)}): convert or copy it again"
            ) from error
        positions = max_positions(folder) or tokenizer.family.positions
        return CTranslate2Engine(model, tokenizer, positions, self.beam_size, self.batch_tokens)


@dataclasses.dataclass
class _Piece:
    """A part of a sentence that the model takes at once."""

    sentence: int
    text: str
    gap: str  # the whitespace after it
    tokens: list[str]


class CTranslate2Engine:
    """A loaded model."""

    def __init__(self, model: Any, tokenizer: ModelTokenizer, positions: int | None, beam_size: int, batch_tokens: int):
        """Prepare decoding.

        Args:
            model: A `ctranslate2.Translator`.
            tokenizer: The model's.
            positions: Most tokens on either side; None for no limit.
            beam_size: Hypotheses kept while decoding.
            batch_tokens: Source tokens per batch, padding included.
        """
        self.tokenizer, self.positions = tokenizer, positions
        self._model = model
        self._settings = {
            "beam_size": beam_size,
            "max_batch_size": batch_tokens,
            "batch_type": "tokens",
            "max_input_length": 0,  # never cut: a source has at most MAX_SOURCE_TOKENS
            "return_end_token": True,
            "disable_unk": True,
        }

    def translate(self, sentences: Sequence[str], source: str, target: str) -> list[Result]:
        """One result per sentence, in order; see Engine."""
        texts = [clean(sentence) for sentence in sentences]
        # A text without a letter or a digit reads the same in every language.
        wordy = [i for i, text in enumerate(texts) if any(map(str.isalnum, text))]
        encoded = self.tokenizer.encode([texts[i] for i in wordy], source, target)
        pieces = [
            piece
            for i, tokens in zip(wordy, encoded, strict=True)
            for piece in self._fitting(_Piece(i, texts[i], "", tokens), source, target)
        ]
        parts: dict[int, list[tuple[Result, str]]] = {}
        for piece, result in zip(pieces, self._decode(pieces, target), strict=True):
            parts.setdefault(piece.sentence, []).append((result, piece.gap))
        return [join_results(parts[i], target) if i in parts else Translated(text) for i, text in enumerate(texts)]

    def _fitting(self, piece: _Piece, source: str, target: str) -> Iterator[_Piece]:
        """The piece, cut into as many as the model's positions require."""
        longest = min(MAX_SOURCE_TOKENS, (self.positions or MAX_SOURCE_TOKENS) - 2)
        cut = halves(piece.text) if len(piece.tokens) > longest else None
        if cut is None:
            yield piece
            return
        for half, gap in zip(cut, ("", piece.gap), strict=True):
            text = half.rstrip()
            (tokens,) = self.tokenizer.encode([text], source, target)
            yield from self._fitting(_Piece(piece.sentence, text, half[len(text) :] + gap, tokens), source, target)

    def _decode(self, pieces: Sequence[_Piece], target: str) -> list[Result]:
        rows = [piece.tokens for piece in pieces]
        results = self._generate(rows, target, {})
        faults = [_faults(result, piece.text) for result, piece in zip(results, pieces, strict=True)]
        again = [i for i, count in enumerate(faults) if count]
        for i, result in zip(again, self._generate([rows[i] for i in again], target, NO_REPEAT), strict=True):
            if _faults(result, pieces[i].text) < faults[i]:
                results[i] = result
        return results

    def _generate(self, rows: Sequence[list[str]], target: str, settings: dict[str, Any]) -> list[Result]:
        """Decode rows of tokens, in groups of one length limit, longest first."""
        groups: dict[int, list[int]] = {}
        for i in sorted(range(len(rows)), key=lambda i: -len(rows[i])):
            groups.setdefault(token_limit(len(rows[i]), self.positions), []).append(i)
        # All groups are submitted before the first answer is awaited, so that no processor waits between two groups.
        pending = [
            (group, self._submit([rows[i] for i in group], limit, target, settings)) for limit, group in groups.items()
        ]
        results: dict[int, Result] = {}
        for limit, (group, futures) in zip(groups, pending, strict=True):
            answers = self._collect([rows[i] for i in group], futures, limit, target, settings)
            results.update(zip(group, answers, strict=True))
        return [results[i] for i in range(len(rows))]

    def _submit(self, rows: Sequence[list[str]], limit: int, target: str, settings: dict[str, Any]) -> list[Any]:
        prefix = self.tokenizer.prefix(target)
        settings = {**settings, "target_prefix": [prefix] * len(rows)} if prefix else settings
        return self._model.translate_batch(  # type: ignore[no-any-return]
            list(rows), asynchronous=True, max_decoding_length=limit, **self._settings, **settings
        )

    def _collect(
        self, rows: Sequence[list[str]], futures: Sequence[Any], limit: int, target: str, settings: dict[str, Any]
    ) -> list[Result]:
        try:
            hypotheses = [future.result().hypotheses[0] for future in futures]
        except (RuntimeError, ValueError) as error:
            if len(rows) == 1:
                return [Untranslated("engine", one_line(error))]
            # One by one, so that only the sentences that make the engine fail are lost.
            submitted = [(row, self._submit([row], limit, target, settings)) for row in rows]
            return [self._collect([row], futures, limit, target, settings)[0] for row, futures in submitted]
        texts = self.tokenizer.decode(hypotheses)
        return [Translated(text, tokens[-1:] == [END]) for text, tokens in zip(texts, hypotheses, strict=True)]


def token_limit(num_tokens: int, positions: int | None) -> int:
    """How many tokens the translation of a source of `num_tokens` may have (see LIMIT)."""
    upper = max(16, 1 << (num_tokens - 1).bit_length())
    return min(2 * upper + 16, positions - 2 if positions else 2 * upper + 16)


def loops(text: str) -> bool:
    """Whether a phrase comes three times or more in a row: "a dog a dog a dog".

    Phrases are of words, or of two characters and more in scripts without spaces. Those without a letter do not count.
    """
    unspaced = _UNSPACED.search(text)
    words = list(text) if unspaced else [word.strip(".,;:!?") for word in text.casefold().split()]
    if len(words) - len(set(words)) < 2:
        return False
    for size in range(2 if unspaced else 1, len(words) // 3 + 1):
        repeated = 0
        for i in range(len(words) - size):
            repeated = repeated + 1 if words[i] == words[i + size] else 0
            if repeated >= 2 * size and any(map(str.isalpha, "".join(words[i - size + 1 : i + 1]))):
                return True
    return False


def _faults(result: Result, source_text: str) -> int:
    """How bad a result is; 0 for nothing to improve. A source that itself repeats a phrase may be translated so."""
    if isinstance(result, Untranslated) or not result.text:
        return 3
    return 2 * (not result.finished) + (loops(result.text) and not loops(source_text))


def choose_device(requested: str) -> str:
    """`auto` is cuda where CTranslate2 sees a device. Raises UsageError where cuda is requested and there is none."""
    devices = require("ctranslate2").get_cuda_device_count() if requested != "cpu" else 0
    if requested == "cuda" and not devices:
        raise UsageError("--mt-device cuda: CTranslate2 sees no CUDA device here: give --mt-device cpu, or auto")
    return "cuda" if devices else "cpu"


def choose_compute_type(device: str) -> str:
    """8-bit weights, with 16-bit floats where the device computes with them."""
    preferred = "int8_float16" if device == "cuda" else "int8"
    supported = require("ctranslate2").get_supported_compute_types(device)
    return next((name for name in (preferred, "int8") if name in supported), "float32")


def _check_pair(folder: Path, name: str, source: str, targets: Sequence[str]) -> None:
    """Raise UsageError where a model without language tokens is known to be of another pair."""
    pair = language_pair(folder, name)
    for model_language, tags in zip(pair, ([source], targets), strict=True):
        # Two letters are a language; three may be a family of languages, about which nothing can be said here.
        language = language_of(model_language) if model_language else ""
        others = [tag for tag in tags if len(language) == 2 and language != language_of(tag)]
        if others or len({language_of(tag) for tag in tags}) > 1:
            raise UsageError(
                f"--mt-model: {name} translates only {pair[0] or 'one language'} to {pair[1] or 'one language'}, not "
                f"{source} to {', '.join(targets)}: name a model for each, for example --mt-model {targets[0]}=PATH"
            )

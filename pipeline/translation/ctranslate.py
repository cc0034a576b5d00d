"""Marian/OPUS-MT, NLLB, M2M100 and MADLAD with CTranslate2.

Sentences are decoded in batches of like length with a limit in proportion to the source; a translation that loops or
does not end is decoded once more with repetition forbidden.
"""

import dataclasses
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.engine.stage import Run
from pipeline.errors import UsageError
from pipeline.quality.surface import repeats
from pipeline.translation.checkpoints import CONVERTED, language_pair, max_positions, one_line, require
from pipeline.translation.families import END, ModelTokenizer
from pipeline.translation.sentences import clean, halves
from pipeline.translation.tags import language_of
from pipeline.translation.translator import LocalBackend, Result, Translated, Translator, Untranslated, join_results

# On a CPU, batches that stay in its caches: 512 tokens were a quarter faster than 4,096, with the same translations.
BATCH_TOKENS = {"cpu": 512, "cuda": 8192}
BATCH_SEGMENTS = 1_024  # a few seconds' work
# A longer source is cut in two: models trained on sentences get worse beyond, and many have 512 positions.
MAX_SOURCE_TOKENS = 256
# Recorded in every row, with the limit of token_limit.
DECODING = {"engine": "ctranslate2", "limit": "2n+16 tokens, n = the source's tokens rounded up to 16, 32, 64 …"}
# For the second decoding of a hypothesis that loops.
NO_REPEAT = {"no_repeat_ngram_size": 3, "repetition_penalty": 1.2}
# Thai, Lao, Burmese, Khmer, Japanese, Chinese.
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]")


@dataclasses.dataclass(frozen=True)
class CTranslate2Translator(Translator):
    """A converted model.

    Attributes:
        folder: Where it is.
        device: cpu or cuda.
        multilingual: A language token chooses the direction; a model of one pair has none.
    """

    folder: str
    device: str = "cpu"
    multilingual: bool = False

    packages = ("ctranslate2", "sentencepiece")

    def check(self, source: str, targets: Sequence[str]) -> None:
        """Raise UsageError where the model cannot be loaded or does not translate `source` into each of `targets`."""
        tokenizer = self.load().tokenizer
        pair = ("", "") if tokenizer.tags else language_pair(Path(self.folder), self.name)
        others = not tokenizer.tags and len({language_of(tag) for tag in targets}) > 1
        for language, tags in zip(map(language_of, pair), ([source], targets), strict=True):
            # Two letters are a language; three may be a family of languages, about which nothing can be said here.
            others |= len(language) == 2 and any(language_of(tag) != language for tag in tags)
        if others:
            raise UsageError(
                f"--mt-model: {self.name} translates only {pair[0] or 'one language'} to {pair[1] or 'one language'}, "
                f"not {source} to {', '.join(targets)}: name a model for each, for example --mt-model {targets[0]}=PATH"
            )
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
                compute_type=self.decoding["compute_type"],
                inter_threads=threads if self.device == "cpu" else 1,
                intra_threads=1,
            )
        except (RuntimeError, ValueError) as error:
            raise UsageError(
                f"--mt-model: {folder / CONVERTED} cannot be loaded ({one_line(error)}): convert or copy it again"
            ) from error
        positions = max_positions(folder) or tokenizer.family.positions
        return CTranslate2Engine(model, tokenizer, positions, self.decoding["beam_size"], BATCH_TOKENS[self.device])


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
        encoded = dict(zip(wordy, self.tokenizer.encode([texts[i] for i in wordy], source, target), strict=True))
        longest = min(MAX_SOURCE_TOKENS, (self.positions or MAX_SOURCE_TOKENS) - 2)
        whole = [i for i in wordy if len(encoded[i]) <= longest or len(texts[i]) < 2]
        results: dict[int, Result] = {i: Translated(text) for i, text in enumerate(texts)}
        decoded = self._decode([texts[i] for i in whole], [encoded[i] for i in whole], target)
        results.update(zip(whole, decoded, strict=True))
        for i in sorted(set(wordy) - set(whole)):
            first, second = halves(texts[i])
            gap = first[len(first.rstrip()) :]
            parts = self.translate([first, second], source, target)
            results[i] = join_results([(parts[0], gap), (parts[1], "")], target)
        return [results[i] for i in range(len(texts))]

    def _decode(self, texts: Sequence[str], rows: Sequence[list[str]], target: str) -> list[Result]:
        """Decode the tokens of texts, and once more with repetition forbidden where that gives something better."""
        results = self._generate(rows, target, {})
        faults = [_faults(result, text) for result, text in zip(results, texts, strict=True)]
        again = [i for i, count in enumerate(faults) if count]
        for i, result in zip(again, self._generate([rows[i] for i in again], target, NO_REPEAT), strict=True):
            if _faults(result, texts[i]) < faults[i]:
                results[i] = result
        return results

    def _generate(self, rows: Sequence[list[str]], target: str, settings: dict[str, Any]) -> list[Result]:
        """Decode rows of tokens, in groups of one length limit, longest first."""
        groups: dict[int, list[int]] = {}
        for i in sorted(range(len(rows)), key=lambda i: -len(rows[i])):
            groups.setdefault(token_limit(len(rows[i]), self.positions), []).append(i)
        prefix = self.tokenizer.prefix(target)
        # All groups are submitted before the first answer is awaited, so that no processor waits between two groups.
        pending = [
            self._model.translate_batch(
                [rows[i] for i in group],
                target_prefix=[prefix] * len(group) if prefix else None,
                asynchronous=True,
                max_decoding_length=limit,
                **self._settings,
                **settings,
            )
            for limit, group in groups.items()
        ]
        results: dict[int, Result] = {}
        for group, futures in zip(groups.values(), pending, strict=True):
            try:
                hypotheses = [future.result().hypotheses[0] for future in futures]
            except (RuntimeError, ValueError) as error:
                if len(rows) == 1:
                    return [Untranslated("engine", one_line(error))]
                # One by one, so that only the sentences that make the engine fail are lost.
                results |= {i: self._generate([rows[i]], target, settings)[0] for i in group}
                continue
            for i, text, tokens in zip(group, self.tokenizer.decode(hypotheses), hypotheses, strict=True):
                results[i] = Translated(text, tokens[-1:] == [END])
        return [results[i] for i in range(len(rows))]


def token_limit(num_tokens: int, positions: int | None) -> int:
    """How many tokens the translation of a source of `num_tokens` may have (see DECODING)."""
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
    return any(
        stop - start >= 2 * size and any(map(str.isalpha, "".join(words[start:stop])))
        for size in range(2 if unspaced else 1, len(words) // 3 + 1)
        for start, stop in repeats(words, size)
    )


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

"""Marian/OPUS-MT, NLLB, M2M100 and MADLAD with CTranslate2.

Sentences are decoded in batches of like length with a limit in proportion to the source; a translation that loops or
does not end is decoded once more with repetition forbidden. A model's family says what its tokens are, and how it is
given the languages.
"""

import dataclasses
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.engine.stage import Run
from pipeline.errors import UsageError
from pipeline.quality.surface import repeats
from pipeline.translation.checkpoints import CONVERTED, language_pair, max_positions, one_line, require
from pipeline.translation.sentences import clean, halves
from pipeline.translation.tags import language_of, model_tag
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

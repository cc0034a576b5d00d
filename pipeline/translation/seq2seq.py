"""Sequence-to-sequence models by Transformers: what CTranslate2 does not serve, mBART for example."""

import dataclasses
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import UsageError
from pipeline.translation import decoding
from pipeline.translation.checkpoints import positions
from pipeline.translation.conversion import quiet
from pipeline.translation.ctranslate import check_pair
from pipeline.translation.families import M2M100, MADLAD, MARIAN, NLLB, listed
from pipeline.translation.tags import mbart_tag
from pipeline.translation.translator import Result, Translated, Untranslated, need, one_line

# Each step costs Transformers much, whatever the batch: larger ones than CTranslate2's were twice as fast.
BATCH_TOKENS = 4096
_MBART = r"[a-z]{2,3}_[A-Z]{2}"
# A model's language tokens: how they look, and which is a language's.
_TAGS: tuple[tuple[str, Callable[[str, Iterable[str]], str | None]], ...] = (
    *((family.tags, family.tag_of) for family in (MARIAN, NLLB, M2M100, MADLAD)),
    (_MBART, mbart_tag),
)
# These stand in the text; the others are tokens that the tokenizer and the decoder begin with.
_IN_TEXT = (MARIAN.tags, MADLAD.tags)


@dataclasses.dataclass(frozen=True)
class Seq2SeqTranslator:
    """A Transformers checkpoint in `folder`. `device` is cpu or cuda, `batch_tokens` counts source tokens, padded.

    `many_languages` tells that a language token chooses the direction; a model of one pair has none.
    """

    name: str
    revision: str
    license: str
    folder: str
    device: str = "cpu"
    beam_size: int = 4
    batch_tokens: int = BATCH_TOKENS
    many_languages: bool = False

    @property
    def decoding(self) -> dict[str, Any]:
        return {"engine": "transformers", "beam_size": self.beam_size, "limit": decoding.LIMIT}

    def check(self, source: str, targets: Sequence[str]) -> None:
        languages = _Languages(_tokenizer(self.folder))
        check_pair(Path(self.folder), self.name, languages.tags, source, targets)
        if languages.tags:
            for target in targets:
                languages.tag(target, "--languages")
            if languages.pattern not in _IN_TEXT:
                languages.tag(source, "source language")

    def load(self) -> "Seq2SeqEngine":
        return Seq2SeqEngine(self)


class Seq2SeqEngine:
    def __init__(self, translator: Seq2SeqTranslator):
        self._torch = need("torch")
        self._translator = translator
        self._tokenizer = _tokenizer(translator.folder)
        self._languages = _Languages(self._tokenizer)
        self._model = _model(translator)
        # A Marian folder's configuration tells its positions; a model without any, such as T5's, has no bound.
        self.positions = positions(Path(translator.folder))

    def translate(self, sentences: Sequence[str], source: str, target: str) -> list[Result]:
        return decoding.translate(self, sentences, source, target)

    def encode(self, texts: Sequence[str], source: str, target: str) -> list[list[int]]:
        """Token ids. A special token that stands in a text, as `</s>`, is text."""
        if not texts:
            return []
        languages, before = self._languages, ""
        if languages.pattern in _IN_TEXT:
            before = f"{languages.tag(target, '--languages')} "
        elif languages.tags:
            self._tokenizer.src_lang = languages.code(languages.tag(source, "source language"))
        return self._tokenizer([before + text for text in texts], split_special_tokens=not before, verbose=False)[
            "input_ids"
        ]

    def generate(
        self, groups: Sequence[tuple[Sequence[list[int]], int]], target: str, careful: bool
    ) -> list[list[Result]]:
        return [
            [result for batch in self._batches(rows) for result in self._answers(batch, limit, target, careful)]
            for rows, limit in groups
        ]

    def _batches(self, rows: Sequence[list[int]]) -> list[Sequence[list[int]]]:
        """Rows, longest first, in batches whose padded size is at most `batch_tokens`."""
        batches, start = [], 0
        while start < len(rows):
            size = max(1, self._translator.batch_tokens // max(1, len(rows[start])))
            batches.append(rows[start : start + size])
            start += size
        return batches

    def _answers(self, rows: Sequence[list[int]], limit: int, target: str, careful: bool) -> list[Result]:
        try:
            return self._decoded(rows, limit, target, careful)
        except (RuntimeError, ValueError, IndexError) as error:
            if len(rows) == 1:
                return [Untranslated("engine", one_line(error))]
            return [result for row in rows for result in self._answers([row], limit, target, careful)]

    def _decoded(self, rows: Sequence[list[int]], limit: int, target: str, careful: bool) -> list[Result]:
        torch, tokenizer = self._torch, self._tokenizer
        longest = max(map(len, rows))
        ids_BS = torch.tensor([row + [tokenizer.pad_token_id] * (longest - len(row)) for row in rows])
        mask_BS = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
        settings: dict[str, Any] = (
            {"suppress_tokens": [tokenizer.unk_token_id]} if tokenizer.unk_token_id is not None else {}
        )
        if self._languages.tags and self._languages.pattern not in _IN_TEXT:
            settings["forced_bos_token_id"] = self._languages.id(target)
        if careful:
            settings["no_repeat_ngram_size"] = decoding.NO_REPEAT_NGRAM
            settings["repetition_penalty"] = decoding.REPETITION_PENALTY
        with torch.inference_mode(), quiet():
            out_BT = self._model.generate(
                input_ids=ids_BS.to(self._model.device),
                attention_mask=mask_BS.to(self._model.device),
                max_new_tokens=limit,
                num_beams=self._translator.beam_size,
                **settings,
            )
        end = self._model.generation_config.eos_token_id
        ends = set(end) if isinstance(end, list) else {end}
        own = set(self._languages.ids()) | set(tokenizer.all_special_ids) | ends
        results: list[Result] = []
        for row in out_BT[:, 1:].tolist():  # the first token is what decoding starts with
            finished = any(token in ends for token in row)
            text = tokenizer.decode([token for token in row if token not in own], clean_up_tokenization_spaces=False)
            results.append(Translated(" ".join(text.split()), finished))
        return results


def language_tokens(folder: Path) -> str:
    """The pattern of a checkpoint's language tokens, a family's `tags` or mBART's; "" where it has none."""
    return _Languages(_tokenizer(str(folder))).pattern


class _Languages:
    """The language tokens of a tokenizer, if it has any."""

    def __init__(self, tokenizer: Any):
        # Transformers 5 keeps M2M100's outside of the vocabulary.
        self._ids = {**tokenizer.get_vocab(), **getattr(tokenizer, "lang_token_to_id", {})}
        self.pattern, self.tags, self._tag_of = "", [], None
        for pattern, tag_of in _TAGS:
            tags = [token for token in self._ids if re.fullmatch(pattern, token)]
            if tags:
                self.pattern, self.tags, self._tag_of = pattern, tags, tag_of
                break

    def tag(self, language: str, option: str) -> str:
        found = self._tag_of(language, self.tags) if self._tag_of else None
        if found is None:
            raise UsageError(f"{option}: got {language}, which this model does not have. It has {listed(self.tags)}")
        return found

    def code(self, tag: str) -> str:
        """The tag as the tokenizer's `src_lang` wants it."""
        return tag.strip("_") if self.pattern == M2M100.tags else tag

    def id(self, language: str) -> int:
        return self._ids[self.tag(language, "--languages")]

    def ids(self) -> list[int]:
        return [self._ids[tag] for tag in self.tags]


def _tokenizer(folder: str) -> Any:
    transformers = need("transformers")
    with quiet():
        try:
            return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, ImportError) as error:
            raise UsageError(
                f"--mt-model: {folder} has no tokenizer that Transformers can read ({one_line(error)}): "
                "wanted the checkpoint's vocabulary beside it (tokenizer.json, or vocab.json and sentencepiece files)"
            ) from error


def _model(translator: Seq2SeqTranslator) -> Any:
    transformers = need("transformers")
    unreadable = (OSError, ValueError, LookupError, RuntimeError, need("safetensors").SafetensorError)
    with quiet():
        try:
            model = transformers.AutoModelForSeq2SeqLM.from_pretrained(translator.folder, local_files_only=True)
        except unreadable as error:
            raise UsageError(
                f"--mt-model: {translator.folder} cannot be loaded by Transformers "
                f"({one_line(error)}): wanted the folder of a sequence-to-sequence model"
            ) from error
    settings = model.generation_config
    # Greedy or beam search, as asked; the end is forced on no translation, so that one cut off is seen to be.
    settings.do_sample = False
    settings.forced_eos_token_id = None
    return model.to(translator.device).eval()

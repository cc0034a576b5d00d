"""What the model-driven engines have in common: batches of like length, limits in proportion, loops stopped."""

import re
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from pipeline.translation.sentences import halves, join
from pipeline.translation.translator import Result, Translated, Untranslated, plain

# A source of more tokens is cut in two: models trained on sentences get worse beyond, and many have 512 positions.
MAX_SOURCE_TOKENS = 256
# Said in every row's decoding.
LIMIT = "2n+16 tokens, n = the source's tokens rounded up to 16, 32, 64 …"
# What a hypothesis that loops is decoded again with.
NO_REPEAT_NGRAM = 3
REPETITION_PENALTY = 1.2
# Thai, Lao, Burmese, Khmer, Japanese, Chinese.
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]")


class Model(Protocol):
    """A tokenizer and a decoder. `positions` bounds the tokens on either side; None: no bound."""

    positions: int | None

    def encode(self, texts: Sequence[str], source: str, target: str) -> list[Any]:
        """One row of tokens a text, each with a len()."""

    def generate(
        self, groups: Sequence[tuple[Sequence[Any], int]], target: str, careful: bool
    ) -> list[list[Translated | Untranslated]]:
        """Translations of each group's rows, which are decoded to at most as many tokens as its number says.

        `careful`: phrases may not repeat (NO_REPEAT_NGRAM, REPETITION_PENALTY).
        """


def translate(model: Model, sentences: Sequence[str], source: str, target: str) -> list[Result]:
    """One result a sentence, in order: a pure function of the list."""
    results: list[Result | None] = [None] * len(sentences)
    pieces: list[tuple[int, str, str, Any]] = []  # (of sentence, text, whitespace after it, row)
    texts = [plain(sentence) for sentence in sentences]
    wordy = [i for i, text in enumerate(texts) if any(map(str.isalnum, text))]
    for i, row in zip(wordy, model.encode([texts[i] for i in wordy], source, target), strict=True):
        pieces += [(i, *piece) for piece in _fitting(model, texts[i], row, source, target)]
    translated = _decode(model, [text for _, text, _, _ in pieces], [row for *_, row in pieces], target)
    of_sentence: dict[int, list[tuple[str, Result]]] = {}
    for (i, _, gap, _), result in zip(pieces, translated, strict=True):
        of_sentence.setdefault(i, []).append((gap, result))
    for i, found in of_sentence.items():
        results[i] = found[0][1] if len(found) == 1 else _joined(found, target)
    # A text without a letter or a digit reads the same in every language.
    return [result or Translated(text) for result, text in zip(results, texts, strict=True)]


def token_limit(num_tokens: int, positions: int | None) -> int:
    """Tokens that the translation of a source of `num_tokens` may have (see LIMIT)."""
    upper = max(16, 1 << (num_tokens - 1).bit_length())
    return min(2 * upper + 16, positions - 2 if positions else 2 * upper + 16)


def loops(text: str) -> bool:
    """Whether a phrase comes three times or more, one right after the other: "a dog a dog a dog".

    Of words, or of two characters and more in scripts without spaces; phrases of digits or signs alone do not count.
    """
    unspaced = _UNSPACED.search(text)
    words = list(text) if unspaced else [word.strip(".,;:!?") for word in text.casefold().split()]
    if len(words) - len(set(words)) < 2:
        return False
    for size in range(2 if unspaced else 1, len(words) // 3 + 1):
        same = 0
        for i in range(len(words) - size):
            same = same + 1 if words[i] == words[i + size] else 0
            if same >= 2 * size and any(map(str.isalpha, "".join(words[i - size + 1 : i + 1]))):
                return True
    return False


def _fitting(model: Model, text: str, row: Any, source: str, target: str) -> Iterator[tuple[str, str, Any]]:
    """(text, whitespace after it, row) of pieces that the model's positions hold."""
    most = min(MAX_SOURCE_TOKENS, (model.positions or MAX_SOURCE_TOKENS) - 2)
    cut = halves(text) if len(row) > most else None
    if cut is None:
        yield text, "", row
        return
    for half in cut:
        stripped = half.rstrip()
        found = list(_fitting(model, stripped, model.encode([stripped], source, target)[0], source, target))
        yield from found[:-1]
        last, gap, last_row = found[-1]
        yield last, gap + half[len(stripped) :], last_row


def _decode(model: Model, texts: Sequence[str], rows: Sequence[Any], target: str) -> list[Result]:
    first = _by_limit(model, rows, range(len(rows)), target, careful=False)
    again = [i for i in range(len(rows)) if _faults(first[i], texts[i])]
    second = _by_limit(model, rows, again, target, careful=True)
    better = {i: second[i] for i in again if _faults(second[i], texts[i]) < _faults(first[i], texts[i])}
    return [better.get(i, first[i]) for i in range(len(rows))]


def _by_limit(model: Model, rows: Sequence[Any], which: Sequence[int], target: str, careful: bool) -> dict[int, Result]:
    """Outcomes by number of row, the rows decoded in groups of one limit, longest first."""
    groups: dict[int, list[int]] = {}
    for i in sorted(which, key=lambda i: -len(rows[i])):
        groups.setdefault(token_limit(len(rows[i]), model.positions), []).append(i)
    asked = [([rows[i] for i in group], limit) for limit, group in groups.items()]
    answers = model.generate(asked, target, careful) if asked else []
    return {
        i: result
        for group, answer in zip(groups.values(), answers, strict=True)
        for i, result in zip(group, answer, strict=True)
    }


def _faults(result: Result, source_text: str) -> int:
    """0: nothing to better. A source that itself repeats a phrase may be translated so."""
    if isinstance(result, Untranslated):
        return 3
    if not result.text:
        return 3
    return 2 * (not result.finished) + (loops(result.text) and not loops(source_text))


def _joined(found: Sequence[tuple[str, Result]], target: str) -> Result:
    failed = next((result for _, result in found if isinstance(result, Untranslated)), None)
    if failed:
        return failed
    done = [(gap, result) for gap, result in found if isinstance(result, Translated)]
    return Translated(join([(each.text, gap) for gap, each in done], target), all(each.finished for _, each in done))

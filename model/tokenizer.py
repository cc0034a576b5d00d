"""A small sentencepiece tokenizer learned from a corpus: all its languages, bytes for characters it has not seen."""

import io
from collections.abc import Iterable
from typing import Any

PAD, UNKNOWN, START, END = range(4)
SMALLEST = 300  # tokens: 256 bytes, the four above, some letters


def load_tokenizer(model: bytes) -> Any:
    """Load a sentencepiece model."""
    import sentencepiece

    return sentencepiece.SentencePieceProcessor(model_proto=model)


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> bytes:
    """Learn a tokenizer; the same texts give the same one.

    Args:
        texts: Texts to learn from.
        vocabulary: Largest number of tokens, at least SMALLEST.

    Returns:
        A serialized sentencepiece model.

    Raises:
        ValueError: There is no text, or the characters do not fit into the vocabulary.
    """
    import sentencepiece

    lines = [line for text in texts if (line := " ".join(text.split()))]
    if not lines:
        raise ValueError("there is no text to learn a tokenizer from")
    for coverage in (0.9995, 0.98):  # rarer characters become bytes where not all fit
        model = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(lines),
                model_writer=model,
                vocab_size=max(vocabulary, SMALLEST),
                hard_vocab_limit=False,
                model_type="unigram",
                byte_fallback=True,
                character_coverage=coverage,
                normalization_rule_name="nmt_nfkc_cf",  # lower-cases too
                max_sentence_length=16_384,
                num_threads=1,
                pad_id=PAD,
                unk_id=UNKNOWN,
                bos_id=START,
                eos_id=END,
                minloglevel=2,
            )
        except RuntimeError:
            continue
        return model.getvalue()
    size, enough = max(vocabulary, SMALLEST), len(set("".join(lines))) + SMALLEST
    raise ValueError(f"a vocabulary of {size:,} is too small for so many characters: {enough:,} is enough")

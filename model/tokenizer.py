"""A sentencepiece tokenizer learned from a corpus: small, of all its languages, bytes for what it never saw."""

import io
from collections.abc import Iterable

PAD, UNKNOWN, START, END = range(4)
SMALLEST = 300  # tokens: 256 bytes, the four above, some letters


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> bytes:
    """A sentencepiece model of at most `vocabulary` tokens (SMALLEST or more), the same for the same texts.

    Raises ValueError where there is no text, and where their characters do not fit.
    """
    import sentencepiece

    lines = [line for text in texts if (line := " ".join(text.split()))]
    if not lines:
        raise ValueError("tokenizer: got no text, wanted texts to learn it from")
    characters = len(set("".join(lines)))
    size = max(vocabulary, SMALLEST)
    for coverage in (0.9995, 0.98):  # the rarer characters become bytes where they do not fit
        model = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(lines),
                model_writer=model,
                vocab_size=size,
                hard_vocab_limit=False,
                model_type="unigram",
                byte_fallback=True,
                character_coverage=coverage,
                normalization_rule_name="nmt_nfkc_cf",  # lower case too
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
    raise ValueError(
        f"vocabulary: got {size:,} tokens for texts of {characters:,} characters, wanted more: "
        f"{characters + SMALLEST:,} are enough"
    )

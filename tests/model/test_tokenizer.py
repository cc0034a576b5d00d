import pytest

from model.tokenizer import PAD, START, load_tokenizer, train_tokenizer
from tests.model.towers import TEXTS


def test_it_reads_all_languages_of_its_texts_and_bytes_of_others():
    model = load_tokenizer(train_tokenizer(TEXTS * 5, 400))
    assert (model.pad_id(), model.bos_id()) == (PAD, START)
    for text in [*TEXTS, "кот", "😀"]:
        ids = model.encode(text)
        assert ids and model.unk_id() not in ids
        assert model.decode(ids) == text.lower()


def test_rare_characters_become_bytes_and_too_many_are_refused():
    many = ["".join(chr(0x4E00 + i) for i in range(start, start + 30)) for start in range(0, 3000, 30)]
    with pytest.raises(ValueError, match="3,300 is enough"):
        train_tokenizer(many, 300)
    model = load_tokenizer(train_tokenizer([*many[:2], *["aaa bbb"] * 2000], 300))
    assert model.vocab_size() <= 300 and model.decode(model.encode(many[0])) == many[0]

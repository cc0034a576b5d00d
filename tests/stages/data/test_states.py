"""States of descriptions: computed once, stored with the corpus, and computed again when they would differ."""

import copy
import dataclasses
from pathlib import Path

import pytest
import torch

from model.modeling import LeccrModel
from model.processing import LeccrProcessor
from model.tokenizer import train_tokenizer
from stages.data import states
from stages.data.batches import TrainingData
from stages.data.samples import Shards
from tests.stages.corpora import row, write_rows, write_training_corpus

WIDTH = 32
SPEC = {"kind": "tiny", "width": WIDTH, "layers": 1, "heads": 2}


def make_model(processor, seed=0, **settings):
    torch.manual_seed(seed)
    media = {**SPEC, "image_size": 16, "patch_size": 8}
    text = {**SPEC, "vocab_size": processor.vocabulary, "max_tokens": processor.policy.max_tokens}
    return LeccrModel.create(
        media, text, **({"slots": "queries", "embed_dim": 16, "num_heads": 2, "num_slots": 2} | settings)
    )


def make_processor(corpus, **options):
    texts = TrainingData([corpus], **options).texts()
    return LeccrProcessor.create("tiny", "tiny", train_tokenizer(texts, 400), image_size=16)


@pytest.fixture
def corpus(tmp_path):
    rows = [row(number, "train" if number < 9 else "val") for number in range(12)]
    rows[4]["descriptions"] = []
    rows[5]["descriptions"][0]["text"] = "a much longer description than those of the other items are"
    return write_rows(tmp_path / "corpus", rows, shards=3)


@pytest.fixture
def processor(corpus):
    return make_processor(corpus)


@pytest.fixture
def model(processor):
    return make_model(processor)


def ensure_states(corpora, model, processor, slot_views=("all",), **options):
    """The states and the messages."""
    messages = []
    stored = states.ensure_states(Shards(corpora), model, processor, slot_views, say=messages.append, **options)
    return stored, messages


def files(corpus):
    return {path: path.stat().st_mtime_ns for path in Path(corpus, "states").rglob("*") if path.is_file()}


def places(corpus):
    shards = Shards([corpus])
    return [(number, place) for number in range(len(shards)) for place in range(shards.shard(number).num_rows)]


def test_states_are_those_of_the_encoder_to_half_precision(corpus, model, processor):
    stored, messages = ensure_states([corpus], model, processor)
    assert len(messages) == 3
    shards, where = Shards([corpus]), places(corpus)
    views = [[view["text"] for view in shards.row(*place)["descriptions"]] for place in where]
    live, texts = model.describe_states(processor.descriptions(views)), stored.texts(where)
    assert texts.tokens.dtype == torch.float16 and texts.tokens.shape[2] == WIDTH
    assert texts.mask.sum(1).equal(live.mask.sum(1))
    assert not texts.mask[views.index([])].any() and texts.mask.any(1).sum() == 11
    for row_TC, mask_T, live_TC, live_T in zip(*texts, *live, strict=True):
        assert torch.allclose(row_TC[mask_T].float(), live_TC[live_T], rtol=2**-10, atol=1e-5)
        assert not row_TC[~mask_T].any()


def test_states_of_several_corpora_are_read_by_place(corpus, model, processor, tmp_path):
    other = write_training_corpus(tmp_path / "other", items=6, seed=3)
    both, _ = ensure_states([other, corpus], model, processor)
    single, _ = ensure_states([corpus], model, processor)
    assert torch.equal(both.texts([(2 + 1, 2)]).tokens, single.texts([(1, 2)]).tokens)


def test_only_missing_states_are_computed(corpus, model, processor):
    ensure_states([corpus], model, processor)
    before = files(corpus)
    _, messages = ensure_states([corpus], copy.deepcopy(model), LeccrProcessor(processor.policy, processor.tokenizer))
    assert files(corpus) == before and not messages
    shards = sorted(path for path in before if path.suffix == ".arrow")
    shards[1].unlink()
    shards[2].write_bytes(shards[2].read_bytes()[:-9])
    _, messages = ensure_states([corpus], model, processor)
    after = files(corpus)
    assert after.keys() == before.keys() and len(messages) == 2
    assert after[shards[0]] == before[shards[0]] and after[shards[2]] != before[shards[2]]


def test_ranks_share_the_shards(corpus, model, processor, tmp_path):
    folders = [write_rows(tmp_path / name, [row(n, "train") for n in range(7)], shards=3) for name in ("one", "two")]
    ensure_states(folders[:1], model, processor)
    for rank, count in ((0, 2), (1, 1)):
        assert len(ensure_states(folders[1:], model, processor, rank=rank, world=2)[1]) == count
    contents = [
        {path.relative_to(home): path.read_bytes() for path in (home / "states").rglob("*") if path.is_file()}
        for home in folders
    ]
    assert contents[0] == contents[1] and len(contents[0]) == 6


def test_whatever_changes_the_states_gives_them_another_folder(corpus, model, processor):
    known = set()

    def count_new(model=model, processor=processor, **options):
        ensure_states([corpus], model, processor, **options)
        folders = {path.parent.name for path in files(corpus)}
        count = len(folders - known)
        known.update(folders)
        return count

    def change(**policy):
        return LeccrProcessor(dataclasses.replace(processor.policy, **policy), processor.tokenizer)

    other_words = make_processor(corpus, languages=("de",))
    assert other_words.tokenizer != processor.tokenizer
    assert count_new() == 1
    assert count_new(slot_views=("short",)) == 1
    assert count_new(model=make_model(processor, seed=1)) == 1
    assert count_new(processor=LeccrProcessor(processor.policy, other_words.tokenizer)) == 1
    assert count_new(processor=change(max_tokens=5)) == 1
    # Neither the trained weights nor how pictures and captions are read change the states.
    trained = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in (*trained.text_encoder.parameters(), *trained.slots.parameters()):
            parameter.add_(1.0)
    assert count_new(model=trained) == count_new(processor=change(image_size=32, max_words=7)) == 0


def test_shard_that_was_packed_again_gets_new_states(corpus, model, processor):
    before = ensure_states([corpus], model, processor)[0].texts([(0, 0)]).tokens
    rows = [row(number, "train") for number in range(12)]
    rows[0]["descriptions"][0]["text"] = "something else altogether"
    write_rows(corpus, rows, shards=3)
    stored, messages = ensure_states([corpus], model, processor)
    after = stored.texts([(0, 0)]).tokens
    assert messages and (after.shape != before.shape or not torch.equal(after, before))


def test_states_of_a_trained_encoder_are_not_stored(corpus, processor):
    with pytest.raises(ValueError, match="description_encoder=frozen"):
        ensure_states([corpus], make_model(processor, description_encoder="shared"), processor)

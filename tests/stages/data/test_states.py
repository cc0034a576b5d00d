"""States of descriptions: computed once, kept with the corpus, near enough to the encoder's own, never stale."""

import copy
import dataclasses
import errno
import os
from pathlib import Path

import pytest
import torch

from model.modeling import LeccrModel
from model.processing import LeccrProcessor
from model.tokenizer import train_tokenizer
from pipeline.errors import EnvironmentTrouble
from stages.data import states
from stages.data.batches import TrainingData
from stages.data.samples import Shards
from stages.data.states import ensure_states
from tests.stages.corpora import row, write_rows, write_training_corpus

WIDTH = 32
SPEC = {"kind": "tiny", "width": WIDTH, "layers": 1, "heads": 2}


def make_model(processor, seed=0, **settings):
    torch.manual_seed(seed)
    media = {**SPEC, "image_size": 16, "patch_size": 8}
    text = {**SPEC, "vocab_size": processor.vocabulary, "max_tokens": processor.policy.max_tokens}
    return LeccrModel.create(media, text, **({"embed_dim": 16, "num_heads": 2, "num_slots": 2} | settings))


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


def files(corpus):
    return {path: path.stat().st_mtime_ns for path in Path(corpus, "states").rglob("*") if path.is_file()}


def places(corpus):
    shards = Shards([corpus])
    return [(number, place) for number in range(len(shards)) for place in range(shards.shard(number).num_rows)]


def test_they_are_the_encoders_own_to_half_precision(corpus, model, processor):
    notes = []
    kept = ensure_states([corpus], model, processor, say=notes.append)
    assert len(notes) == 3
    shards, where = Shards([corpus]), places(corpus)
    views = [[view["text"] for view in shards.row(*place)["descriptions"]] for place in where]
    live, found = model.describe_states(processor.descriptions(views)), kept.texts(where)
    assert found.tokens.dtype == torch.float16 and found.tokens.shape[2] == WIDTH
    assert found.mask.sum(1).equal(live.mask.sum(1))
    assert not found.mask[views.index([])].any() and found.mask.any(1).sum() == 11
    for row_TC, mask_T, live_TC, live_T in zip(*found, *live, strict=True):
        assert torch.allclose(row_TC[mask_T].float(), live_TC[live_T], rtol=2**-10, atol=1e-5)
        assert not row_TC[~mask_T].any()


def test_states_of_several_corpora_are_found_by_place(corpus, model, processor, tmp_path):
    other = write_training_corpus(tmp_path / "other", items=6, seed=3)
    both = ensure_states([other, corpus], model, processor)
    alone = ensure_states([corpus], model, processor)
    assert torch.equal(both.texts([(2 + 1, 2)]).tokens, alone.texts([(1, 2)]).tokens)


def test_stored_states_are_reused_and_missing_ones_computed(corpus, model, processor):
    notes = []
    ensure_states([corpus], model, processor, say=notes.append)
    before = files(corpus)
    notes.clear()
    ensure_states(
        [corpus], copy.deepcopy(model), LeccrProcessor(processor.policy, processor.tokenizer), say=notes.append
    )
    assert files(corpus) == before and not notes
    shards = sorted(path for path in before if path.suffix == ".arrow")
    shards[1].unlink()
    shards[2].write_bytes(shards[2].read_bytes()[:-9])
    ensure_states([corpus], model, processor, say=notes.append)
    after = files(corpus)
    assert after.keys() == before.keys() and len(notes) == 2
    assert after[shards[0]] == before[shards[0]] and after[shards[2]] != before[shards[2]]


def test_run_killed_between_shards_computes_the_rest(corpus, model, processor, monkeypatch):
    real, made = states.write_shard, []

    def dies(path, table):
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(path)
        return real(path, table)

    monkeypatch.setattr(states, "write_shard", dies)
    with pytest.raises(KeyboardInterrupt):
        ensure_states([corpus], model, processor)
    monkeypatch.setattr(states, "write_shard", real)
    kept = [path.stat().st_mtime_ns for path in made]
    notes = []
    ensure_states([corpus], model, processor, say=notes.append)
    assert len(notes) == 1 and [path.stat().st_mtime_ns for path in made] == kept


def test_ranks_make_each_their_shards_and_together_all(corpus, model, processor, tmp_path):
    alone = write_rows(tmp_path / "alone", [row(n, "train") for n in range(7)], shards=3)
    shared = write_rows(tmp_path / "shared", [row(n, "train") for n in range(7)], shards=3)
    ensure_states([alone], model, processor)
    for rank, count in ((0, 2), (1, 1)):
        notes = []
        ensure_states([shared], model, processor, rank=rank, world=2, say=notes.append)
        assert len(notes) == count
    contents = [
        {path.relative_to(home): path.read_bytes() for path in sorted(home.rglob("*")) if path.is_file()}
        for home in (alone / "states", shared / "states")
    ]
    assert contents[0] == contents[1] and len(contents[0]) == 6


def test_what_changes_the_states_has_states_of_its_own(corpus, model, processor):
    def folder(model=model, processor=processor, **options):
        ensure_states([corpus], model, processor, **options)
        return {path.parent.name for path in files(corpus)}

    known = folder()
    assert len(known) == 1

    def new(**options):
        found = folder(**options)
        count = len(found - known)
        known.update(found)
        return count

    other_words = make_processor(corpus, languages=("de",))
    assert other_words.tokenizer != processor.tokenizer
    assert new(slot_views=("short",)) == 1
    assert new(model=make_model(processor, seed=1)) == 1
    assert new(processor=LeccrProcessor(processor.policy, other_words.tokenizer)) == 1
    assert new(processor=LeccrProcessor(dataclasses.replace(processor.policy, max_tokens=5), processor.tokenizer)) == 1
    # neither what is trained nor how pictures and captions are read is any of their business
    trained = copy.deepcopy(model)
    with torch.no_grad():
        for weights in (trained.text_encoder.parameters(), trained.slots.parameters()):
            for parameter in weights:
                parameter.add_(1.0)
    assert new(model=trained) == 0
    larger = dataclasses.replace(processor.policy, image_size=32, max_words=7)
    assert new(processor=LeccrProcessor(larger, processor.tokenizer)) == 0


def test_a_shard_that_was_packed_anew_gets_new_states(corpus, model, processor):
    kept = ensure_states([corpus], model, processor)
    before = kept.texts([(0, 0)]).tokens
    rows = [row(number, "train") for number in range(12)]
    rows[0]["descriptions"][0]["text"] = "something else altogether"
    write_rows(corpus, rows, shards=3)
    notes = []
    after = ensure_states([corpus], model, processor, say=notes.append).texts([(0, 0)]).tokens
    assert len(notes) >= 1 and (after.shape != before.shape or not torch.equal(after, before))


def test_a_trained_description_encoder_has_none_to_keep(corpus, processor):
    shared = make_model(processor, description_encoder="shared")
    with pytest.raises(ValueError, match="description_encoder=frozen"):
        ensure_states([corpus], shared, processor)
    assert not list(Path(corpus).rglob("*.tmp"))


def test_full_disk_is_reported_with_the_way_out(corpus, model, processor, monkeypatch):
    def full(path, table):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(states, "write_shard", full)
    with pytest.raises(EnvironmentTrouble, match=r"00000-of-00003\.arrow: .*written \(No space left.*cache_states=no"):
        ensure_states([corpus], model, processor)

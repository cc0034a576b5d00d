"""Features that were computed before: found in a split, read into batches, trained on and scored."""

import numpy as np
import pytest
import torch
from PIL import Image

from model.processing import LeccrProcessor
from model.tokenizer import train_tokenizer
from pipeline.errors import EnvironmentTrouble, UsageError
from pipeline.media.uri import reference
from stages.data.batches import EvaluationData, TrainingData
from stages.data.media import UNCHANGED, Augmentation, feature_sizes, random_box
from tests.stages.corpora import feature_row, features, row, write_feature_corpus, write_rows, write_training_corpus


def of_features(data, **policy):
    return LeccrProcessor.create("features", "tiny", train_tokenizer(data.texts(), 400), **policy)


def test_features_come_padded_with_their_mask_and_are_not_augmented(tmp_path):
    data = TrainingData([write_rows(tmp_path, [feature_row(number, "train") for number in range(4)], shards=1)])
    augmentation = Augmentation(flip=1.0, smallest_crop=0.5)
    batch = data.batch(
        [6, 0, 4], of_features(data, input_dim=6, max_frames=9), seed=0, epoch=0, augmentation=augmentation
    )
    assert batch.media.frames.dtype == torch.float32 and batch.media.frames.shape == (3, 4, 6)
    assert batch.media.mask.sum(1).tolist() == [4, 1, 3]
    for place, number in enumerate((3, 0, 2)):
        expected = features(number, 1 + number).astype(np.float16).astype(np.float32)
        assert np.array_equal(batch.media.frames[place][batch.media.mask[place]].numpy(), expected)
        assert not batch.media.frames[place][~batch.media.mask[place]].any()


def test_a_random_crop_has_the_share_and_the_shape_that_the_released_code_draws():
    random = np.random.default_rng(0)
    boxes = np.array([random_box(400, 360, 0.5, random) for _ in range(2000)])
    widths, heights = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    assert (boxes[:, :2] >= 0).all() and (boxes[:, 2] <= 400).all() and (boxes[:, 3] <= 360).all()
    shares, ratios = widths * heights / (400 * 360), widths / heights
    assert 0.495 < shares.min() < 0.51 and 0.98 < shares.max() <= 1
    assert 0.745 < ratios.min() < 0.77 and 1.31 < ratios.max() < 1.34
    assert (boxes[:, 0] > 0).mean() > 0.8 and len({tuple(box) for box in boxes}) > 1900
    assert random_box(900, 90, 0.5, random) == (390, 0, 510, 90)  # no share of a half has such a ratio


def test_all_frames_of_an_item_are_cropped_and_mirrored_alike():
    frames = [Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8))] * 2
    augmentation = Augmentation(flip=1.0, smallest_crop=0.5)
    first, second = augmentation.apply(frames, 32, np.random.default_rng(5))
    assert first.size == (32, 32) and np.array_equal(first, second)
    random = np.random.default_rng(5)
    random.random()
    crop = frames[0].crop(random_box(120, 90, 0.5, random)).resize((32, 32), Image.Resampling.BICUBIC)
    assert np.abs(np.asarray(crop, float)[:, ::-1] - np.asarray(first, float)).mean() < 10
    assert UNCHANGED.apply(frames, 32, random) is frames and augmentation.pixels(384) == 544


@pytest.mark.parametrize(("most", "taken"), [(1, [2]), (2, [1, 3]), (3, [0, 2, 4]), (5, [0, 1, 2, 3, 4])])
def test_features_longer_than_max_frames_are_sampled_evenly(tmp_path, most, taken):
    data = EvaluationData([write_rows(tmp_path, [feature_row(4, "val", dtype="float32")], shards=1)], "val")
    of = of_features(TrainingData([tmp_path], split="val"), input_dim=6, max_frames=most)
    data.expect(of, "it")
    frames, _ = data.items([0])
    assert np.array_equal(of.media(frames).frames[0].numpy(), features(4, 5)[taken])


def test_referenced_features_are_read_in_place(tmp_path):
    matrix = np.concatenate([features(number, 4) for number in range(3)])
    (tmp_path / "feature.bin").write_bytes(matrix.astype("<f4").tobytes())
    uris = [reference(str(tmp_path / "feature.bin"), dim=6, rows=rows) for rows in ([0, 1, 2, 3], [8, 4, 5])]
    absent = {"media": None, "num_frames": 0}
    rows = [{**row(number, "train"), **absent, "uri": uri} for number, uri in enumerate(uris)]
    data = TrainingData([write_rows(tmp_path / "corpus", rows, shards=1)])
    assert feature_sizes(data.shards, ["train"]) == (6, 4)
    media = data.batch([0, 2], of_features(data, input_dim=6), seed=0, epoch=0).media
    assert np.array_equal(media.frames[0].numpy(), matrix[:4]) and media.mask.sum(1).tolist() == [4, 3]
    assert np.array_equal(media.frames[1, :3].numpy(), matrix[[8, 4, 5]])


def test_features_of_other_widths_and_mixed_media_are_refused(tmp_path):
    rows = [feature_row(0, "train"), feature_row(1, "train", width=7)]
    data = TrainingData([write_rows(tmp_path / "widths", rows, shards=1)])
    for work in (
        lambda: feature_sizes(data.shards, ["train"]),
        lambda: data.batch([2], of_features(data, input_dim=6), seed=0, epoch=0),
    ):
        with pytest.raises(UsageError, match=r"item-00001\.jpg has features of 7 values"):
            work()
    mixed = TrainingData([write_rows(tmp_path / "mixed", [row(0, "train"), feature_row(1, "train")])])
    with pytest.raises(UsageError, match=r"item-00001\.jpg has features of 6 values, but item-00000\.jpg has pictures"):
        feature_sizes(mixed.shards, ["train"])
    assert feature_sizes(mixed.shards, ["val"]) is None
    with pytest.raises(UsageError, match=r"item-00000\.jpg has pictures"):
        mixed.batch([0], of_features(mixed, input_dim=6), seed=0, epoch=0)
    tiny = LeccrProcessor.create("tiny", "tiny", train_tokenizer(mixed.texts(), 400))
    with pytest.raises(UsageError, match=r"item-00001\.jpg has features"):
        mixed.batch([2], tiny, seed=0, epoch=0)


def test_damaged_features_are_reported_with_shard_and_item(tmp_path):
    rows = [feature_row(number, "train") for number in range(2)]
    rows[1]["media"] = rows[1]["media"][:-1]
    data = TrainingData([write_rows(tmp_path, rows, shards=1)])
    with pytest.raises(EnvironmentTrouble, match=r"part-00000-of-00001\.arrow: .*item-00001\.jpg.*truncated"):
        data.batch([2], of_features(data, input_dim=6), seed=0, epoch=0)


def test_a_split_to_be_scored_has_what_the_model_reads(tmp_path):
    corpus = write_training_corpus(tmp_path / "pictures")
    processor = LeccrProcessor.create("tiny", "tiny", train_tokenizer(TrainingData([corpus]).texts(), 400))
    data = EvaluationData([write_feature_corpus(tmp_path)], "val")
    with pytest.raises(UsageError, match="--checkpoint run reads pictures"):
        data.expect(processor, "--checkpoint run")
    training = TrainingData([tmp_path])
    with pytest.raises(UsageError, match=r"reads features of 8 values, but .* has features of 6"):
        data.expect(of_features(training, input_dim=8), "run")
    with pytest.raises(UsageError, match=r"run reads features .*, but .* has pictures"):
        EvaluationData([corpus], "val").expect(of_features(training, input_dim=6), "run")
    EvaluationData([corpus], "val").expect(processor, "run")

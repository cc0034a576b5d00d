"""From settings to model and batches: the same on every rank, and refused where a checkpoint is of another run."""

import argparse

import pytest
import torch

from pipeline.errors import UsageError
from stages.data.batches import StepBatches
from stages.training import building
from stages.training.optim import parameter_groups
from stages.training.run_folder import ModelWriter, make_record
from stages.training.settings import resolve
from tests.stages.corpora import write_feature_corpus, write_training_corpus

TINY = ("tiny_width=16", "tiny_layers=1", "tiny_vocabulary=300", "image_size=16", "embed_dim=8", "num_heads=2")
MORE = ("num_slots=2", "slot_layers=1", "interaction_layers=1", "batch_size=4")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_training_corpus(tmp_path_factory.mktemp("building") / "corpus", items=12)


class Accelerator(argparse.Namespace):
    """As much of one as is asked for."""

    def __init__(self, rank=0, world=1):
        super().__init__(process_index=rank, num_processes=world, device=torch.device("cpu"))

    def main_process_first(self):
        import contextlib

        return contextlib.nullcontext()

    def wait_for_everyone(self):
        pass


def step_batches(data, processor, settings, rank=0, world=1):
    sizes = {"seed": settings.seed, "flip": settings.horizontal_flip, "rank": rank, "world": world}
    return StepBatches(data, processor, settings.batch_size, **sizes)


def settings_of(*more):
    return resolve("base", [*TINY, *MORE, *more])


def test_ranks_have_the_batch_that_one_has_alone_and_its_items_are_known(corpus):
    settings = settings_of()
    data, _ = building.open_data(settings, [corpus], 2)
    _, processor = building.create_model(settings, data, Accelerator())
    alone = step_batches(data, processor, settings)
    ranks = [step_batches(data, processor, settings, rank, 2) for rank in (0, 1)]
    for step in (0, 1, alone.steps_per_epoch, 3 * alone.steps_per_epoch + 1):
        whole = alone[step]
        parts = [one[step] for one in ranks]
        assert torch.equal(torch.cat([part.item_ids for part in parts]), whole.item_ids)
        assert torch.equal(torch.cat([part.media.frames for part in parts]), whole.media.frames)
        assert len(set(whole.item_ids.tolist())) == len(alone.item_ids(step))
        assert ranks[1].item_ids(step) == alone.item_ids(step)
    assert not torch.equal(alone[0].item_ids, alone[alone.steps_per_epoch].item_ids)


def test_texts_and_flips_are_drawn_anew_each_epoch(corpus, monkeypatch):
    settings = settings_of("horizontal_flip=.25", "seed=7")
    data, _ = building.open_data(settings, [corpus], 1)
    given = []
    monkeypatch.setattr(data, "batch", lambda samples, processor, **more: given.append(more))
    batches = step_batches(data, None, settings)
    for step in (0, batches.steps_per_epoch - 1, batches.steps_per_epoch, 2 * batches.steps_per_epoch):
        batches[step]
    assert given == [{"seed": 7, "epoch": epoch, "augment": 0.25} for epoch in (0, 0, 1, 2)]


def test_the_model_starts_alike_by_its_seed(corpus):
    data, _ = building.open_data(settings_of(), [corpus], 1)
    one, two, other = (
        building.create_model(settings_of(f"seed={seed}"), data, Accelerator())[0].state_dict() for seed in (0, 0, 1)
    )
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["media_head.weight"], other["media_head.weight"])


@pytest.mark.parametrize("more", [(), ("num_slots=0",), ("description_encoder=shared",)])
def test_every_trainable_parameter_of_the_model_is_in_one_group(corpus, more):
    settings = settings_of(*more)
    data, _ = building.open_data(settings, [corpus], 1)
    model, _ = building.create_model(settings, data, Accelerator())
    placed = [id(p) for group in parameter_groups(model, model.new_parameters(), settings) for p in group["params"]]
    trainable = [p for p in model.parameters() if p.requires_grad]
    assert sorted(placed) == sorted(map(id, trainable))
    frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
    assert all(name.startswith("description_encoder.") for name in frozen)


def test_human_targets_are_the_settings_affair(corpus):
    assert building.open_data(settings_of(), [corpus], 1)[0].human_targets
    assert not building.open_data(settings_of("human_targets=no"), [corpus], 1)[0].human_targets


def test_policy_follows_the_settings(corpus):
    settings = settings_of("max_words=7", "max_tokens=9", "truncate_training_texts=no")
    data, _ = building.open_data(settings, [corpus], 1)
    model, processor = building.create_model(settings, data, Accelerator())
    policy = processor.policy
    assert (policy.max_words, policy.max_tokens, policy.truncate_training_texts) == (7, 9, False)
    assert policy.image_size == 16 and model.config.text_encoder["max_tokens"] == 9


def test_states_of_a_frozen_encoder_are_kept_and_read(corpus):
    for more, kept in {("cache_states=no",): False, ("description_encoder=shared",): False, (): True}.items():
        settings = settings_of(*more)
        data, _ = building.open_data(settings, [corpus], 1)
        model, processor = building.create_model(settings, data, Accelerator())
        building.use_states(settings, data, model, processor, Accelerator())
        batch = step_batches(data, processor, settings)[0]
        assert batch.descriptions.tokens.is_floating_point() == kept


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ("num_slots=3", "has num_slots=2, the settings have 3"),
        ("tiny_width=32", "has media_encoder="),
        ("dropout=.3", "has dropout=0.1, the settings have 0.3"),
        ("text=embedded", "has text_encoder="),
    ],
)
def test_a_checkpoint_of_other_sizes_is_refused(corpus, tmp_path, more, told):
    settings = settings_of()
    data, _ = building.open_data(settings, [corpus], 1)
    model, processor = building.create_model(settings, data, Accelerator())
    writer = ModelWriter(tmp_path, model, processor, make_record(settings, [corpus]))
    folder = tmp_path / "step-00000001"
    writer.write(folder, None)
    again, _ = building.restore_model(folder, settings)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    with pytest.raises(UsageError, match="checkpoint step-00000001 does not belong to this run") as caught:
        building.restore_model(folder, settings_of(more))
    assert told in str(caught.value) and "--overwrite" in str(caught.value)


def test_batches_that_processes_cannot_share_or_that_are_too_large_are_refused(corpus):
    with pytest.raises(UsageError, match="multiple of 3"):
        building.open_data(settings_of(), [corpus], 3)
    with pytest.raises(UsageError, match="batch_size=400"):
        building.open_data(settings_of("batch_size=400"), [corpus], 1)


def test_what_one_corpus_trains_on_and_another_holds_out_is_refused(corpus, tmp_path):
    other = write_training_corpus(tmp_path / "other", items=12, splits={"val": 0.7, "train": 0.3})  # the same contents
    with pytest.raises(UsageError, match="that another holds out"):
        building.open_data(settings_of(), [corpus, other], 1)
    apart = write_training_corpus(tmp_path / "apart", items=12, seed=1)
    assert len(building.open_data(settings_of(), [corpus, apart], 1)[0]) > len(
        building.open_data(settings_of(), [corpus], 1)[0]
    )


def test_media_of_the_other_kind_and_a_vocabulary_too_small_are_refused(corpus, tmp_path):
    data, _ = building.open_data(settings_of(), [corpus], 1)
    with pytest.raises(UsageError, match=r"media=features reads features, but .* has pictures"):
        building.create_model(settings_of("media=features", "image_size=0"), data, Accelerator())
    with pytest.raises(UsageError, match="image_size=16"):
        building.create_model(settings_of("media=features"), data, Accelerator())
    features, _ = building.open_data(settings_of(), [write_feature_corpus(tmp_path / "features")], 1)
    with pytest.raises(UsageError, match=r"media=tiny reads pictures, but .* has features of 6"):
        building.create_model(settings_of(), features, Accelerator())
    data.texts = lambda: ["".join(map(chr, range(0x4E00, 0x4E00 + 2000)))]
    with pytest.raises(UsageError, match="tiny_vocabulary=300 is too small"):
        building.create_model(settings_of(), data, Accelerator())


@pytest.mark.parametrize(("given", "most"), [(0, 5), (3, 3)])
def test_the_tower_of_features_is_as_wide_and_long_as_they_are(tmp_path, given, most):
    corpus = write_feature_corpus(tmp_path)
    settings = settings_of("media=features", "image_size=0", "feature_width=136", f"feature_frames={given}")
    data, _ = building.open_data(settings, [corpus], 1)
    model, processor = building.create_model(settings, data, Accelerator())
    sizes = {"input_dim": 6, "width": 136, "layers": 1, "heads": 2, "max_frames": most}
    assert model.config.media_encoder == {"kind": "features", **sizes}
    batch = step_batches(data, processor, settings)[0]
    assert batch.media.frames.shape[1] <= most and batch.media.frames.shape[2] == 6
    writer = ModelWriter(tmp_path, model, processor, make_record(settings, [corpus]))
    writer.write(tmp_path / "step-00000001", None)
    _, again = building.restore_model(tmp_path / "step-00000001", settings)
    assert again.policy == processor.policy

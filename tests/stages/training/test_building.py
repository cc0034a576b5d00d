"""From settings to model and batches: the same on every rank, and refused where a checkpoint is of another run."""

import json

import pytest
import torch
from accelerate import Accelerator

from pipeline.errors import UsageError
from stages.data.batches import EvaluationData, StepBatches
from stages.training import building
from stages.training.run_folder import ModelWriter, make_record
from stages.training.settings import resolve
from tests.model.towers import picture, whole, write_picture_settings
from tests.stages.corpora import write_feature_corpus, write_training_corpus

TINY = ("tiny_width=16", "tiny_layers=1", "tiny_vocabulary=300", "image_size=16", "embed_dim=8", "num_heads=2")
MORE = ("num_slots=2", "slot_layers=1", "interaction_layers=1", "batch_size=4")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_training_corpus(tmp_path_factory.mktemp("building") / "corpus", items=12)


def settings_of(*more):
    return resolve("base", [*TINY, *MORE, *more])


def create(corpus, *more):
    """Data, model and processor of a run with these settings."""
    settings = settings_of(*more)
    data, _ = building.open_data(settings, [corpus], 1)
    return data, *building.create_model(settings, data, Accelerator(cpu=True))


@pytest.mark.parametrize(
    ("more", "stored"), [((), True), (("cache_states=no",), False), (("description_encoder=shared",), False)]
)
def test_states_of_a_frozen_encoder_are_stored_and_read(corpus, more, stored):
    data, model, processor = create(corpus, *more)
    validation = EvaluationData([corpus], "val")
    building.use_states(settings_of(*more), data, validation, model, processor, Accelerator(cpu=True))
    assert validation.stored == data.stored
    batch = StepBatches(data, processor, 4)[0]
    assert batch.descriptions.tokens.is_floating_point() == stored


def test_faithful_builds_what_was_released(corpus, tmp_path):
    whole("clip").save_pretrained(tmp_path)
    write_picture_settings(tmp_path)
    _, model, processor = create(corpus, "method=faithful", f"media={tmp_path}", "image_size=64", "select_on=val")
    policy = processor.policy
    assert (policy.image_size, policy.resize, policy.max_words, policy.plain_captions) == (64, "squash", 30, True)
    assert policy.max_tokens == 200 and model.tau.item() == pytest.approx(0.07)
    tokens, _, _ = model.media_encoder(processor.media([[picture(0, (80, 50))]]))
    assert tokens.shape == (1, 1 + (64 // 8) ** 2, 16)  # through the projection
    assert [len(x) for name, x in model.named_parameters() if "position_embedding" in name] == [65]
    assert (model.slots.queries_KD == 0).all() and model.description_encoder is None
    for layers in (model.slots.layers, model.interaction.slots_read):
        assert all(torch.equal(layer.query.weight, layers[0].query.weight) for layer in layers)


def test_checkpoint_with_other_sizes_is_refused(corpus, tmp_path):
    settings = settings_of()
    _, model, processor = create(corpus)
    folder = tmp_path / "step-00000001"
    ModelWriter(tmp_path, model, processor, make_record(settings, [corpus])).write(folder, None)
    restored, _ = building.restore_model(folder, settings)
    assert all(torch.equal(value, restored.state_dict()[name]) for name, value in model.state_dict().items())
    for override, name in {
        "num_slots=3": "num_slots=2",
        "tiny_width=32": "media_encoder",
        "dropout=.3": "dropout=0.1",
        "text=embedded": "text_encoder",
    }.items():
        with pytest.raises(UsageError, match=f"does not belong to this run: it has {name}.*--overwrite"):
            building.restore_model(folder, settings_of(override))


def test_a_run_starts_from_the_weights_of_another(corpus, tmp_path):
    settings = settings_of("media=tiny", "slots=views")
    _, model, processor = create(corpus, "slots=views")
    record = make_record(settings, [corpus])
    ModelWriter(tmp_path, model, processor, record).write(tmp_path / "best", None)
    (tmp_path / "record.json").write_text(json.dumps(record))

    def start(*more):
        settings = settings_of("slots=views", f"init={tmp_path}", *more)
        return building.start_from(settings.init, settings, building.open_data(settings, [corpus], 1)[0])

    started, read = start("dropout=.3", "view_dropout=.4")
    assert all(torch.equal(value, started.state_dict()[name]) for name, value in model.state_dict().items())
    assert read.policy == processor.policy and started.config.view_dropout == 0.4
    for override, message in {
        "text=embedded": "text=tiny",
        "max_tokens=9": "max_tokens=0",
        "embed_dim=4": "embed_dim=8",
        "slot_views=short": "slot_views=detail,short",
    }.items():
        with pytest.raises(UsageError, match=f"^init=.*{message}"):
            start(override)
    whole("clip").save_pretrained(tmp_path / "clip")
    with pytest.raises(UsageError, match="not a LECCR model"):
        building.start_from(str(tmp_path / "clip"), settings, None)


def test_leak_between_corpora_is_refused(corpus, tmp_path):
    other = write_training_corpus(tmp_path / "other", items=12, splits={"val": 0.7, "train": 0.3})  # the same contents
    with pytest.raises(UsageError, match="that another holds out"):
        building.open_data(settings_of(), [corpus, other], 1)
    distinct = write_training_corpus(tmp_path / "distinct", items=12, seed=1)
    both, _ = building.open_data(settings_of(), [corpus, distinct], 1)
    assert len(both) > len(building.open_data(settings_of(), [corpus], 1)[0])


def test_media_of_another_kind_are_refused(corpus, tmp_path):
    features = write_feature_corpus(tmp_path / "features")
    for folder, overrides, message in (
        (corpus, ("media=features", "image_size=0"), "media=features reads features of .*, but .* has pictures"),
        (corpus, ("media=features",), "image_size=16"),
        (features, (), "media=tiny reads pictures, but .* has features of 6"),
    ):
        with pytest.raises(UsageError, match=message):
            create(folder, *overrides)


@pytest.mark.parametrize(("given", "most"), [(0, 5), (3, 3)])
def test_feature_encoder_has_the_sizes_of_the_features(tmp_path, given, most):
    corpus = write_feature_corpus(tmp_path)
    overrides = ("media=features", "image_size=0", "feature_width=136", f"feature_frames={given}")
    data, model, processor = create(corpus, *overrides)
    sizes = {"input_dim": 6, "width": 136, "layers": 1, "heads": 2, "max_frames": most}
    assert model.config.media_encoder == {"kind": "features", **sizes}
    frames = StepBatches(data, processor, 4)[0].media.frames
    assert frames.shape[1] <= most and frames.shape[2] == 6
    folder = tmp_path / "step-00000001"
    ModelWriter(tmp_path, model, processor, make_record(settings_of(), [corpus])).write(folder, None)
    assert building.restore_model(folder, settings_of(*overrides))[1].policy == processor.policy

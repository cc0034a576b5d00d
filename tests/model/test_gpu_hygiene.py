"""What a GPU needs of the model, without one: no graph breaks, no waiting for values, fused attention."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from model.batch import map_tensors, to_device
from model.encoders.transformers_towers import TextTower
from model.modeling import LeccrModel
from model.parts import cached_step
from model.settings import ObjectiveConfig
from model.slots import CrossAttentionLayer
from tests.model.towers import RELEASED, SIZES, ids_batch, text_towers, vision_towers
from tests.model.toy import gradients, loss_of, make_batch, make_model, split

CPU = torch.device("cpu")
WAITING = ("aten::nonzero", "aten::item", "aten::_local_scalar_dense", "aten::is_nonzero", "aten::equal")


class Calls(TorchDispatchMode):
    """The names of all operations that are called within."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, operation, types, arguments=(), options=None):
        self.names.add(operation.name().partition(".")[0])
        return operation(*arguments, **(options or {}))

    @property
    def waiting(self):
        """Those that a GPU has to be waited for."""
        return {name for name in self.names if name in WAITING}


def pretrained_model(text, slots):
    torch.manual_seed(0)
    specs = (
        {"kind": "transformers", "class": type(tower).__name__, "config": tower.config.to_diff_dict()}
        for tower in (vision_towers()["clip"](), text_towers()[text]())
    )
    return LeccrModel.create(*specs, num_heads=4, **({"views": ("caption",)} if slots == "views" else RELEASED))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("slots", ["views", "queries", "none"])
def test_the_model_compiles_whole_and_gives_the_same(slots, training):
    plain, compiled = (make_model(slots=slots, dropout=0.2).train(training) for _ in range(2))
    compiled.compile(fullgraph=True, backend="eager")
    torch._dynamo.reset()
    for samples in (make_batch(8), make_batch(6, seed=1)):
        results = []
        for model in (plain, compiled):
            model.zero_grad()
            torch.manual_seed(3)
            features = model(to_device(samples, CPU))
            losses = loss_of(model, ObjectiveConfig())(features, samples.item_ids, samples.weights)
            if training:
                losses.total.backward()
            results.append((features, gradients(model) if training else None))
        torch.testing.assert_close(*results, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("text", ["xlm_roberta", "clip"])
@pytest.mark.parametrize("slots", ["views", "queries"])
def test_towers_of_transformers_compile_with_it(text, slots):
    model, samples = pretrained_model(text, slots).eval(), to_device(ids_batch(size=32), CPU)
    expected = model(samples)
    torch._dynamo.reset()
    model.compile(fullgraph=True, backend="eager")
    torch.testing.assert_close(model(samples), expected)


@pytest.mark.parametrize("slots", ["views", "queries", "none"])
def test_a_step_does_not_wait_for_the_device(slots):
    model = make_model(slots=slots, dropout=0.2).train()
    prepared = [to_device(part, CPU) for part in split(make_batch(16), [5, 8, 3])]
    with Calls() as calls:
        cached_step(
            model, prepared, loss_of(model, ObjectiveConfig(distillation_weight=0.5)), model.temperature_parameters
        )
    assert "aten::mm" in calls.names and not calls.waiting


@pytest.mark.parametrize("text", ["xlm_roberta", "clip", "bert", "distilbert"])
def test_a_step_with_towers_of_transformers_does_not_wait_either(text):
    model, samples = pretrained_model(text, "views").train(), to_device(ids_batch(frames=2, size=32), CPU)
    with Calls() as calls:
        cached_step(model, [samples], loss_of(model, ObjectiveConfig()), model.temperature_parameters)
    assert not calls.waiting


def test_without_a_layout_the_mask_is_read_where_it_is():
    model, samples = make_model(slots="none"), make_batch(8)
    with Calls() as calls:
        features = model(samples)
    assert "aten::nonzero" in calls.waiting
    torch.testing.assert_close(model(to_device(samples, CPU)), features)
    sliced = map_tensors(to_device(samples, CPU), lambda x: x[2:5])  # of other items than the layout
    assert sliced.media.layout is None
    torch.testing.assert_close(model(sliced).media_BE, features.media_BE[2:5])


@pytest.mark.parametrize("family", ["xlm_roberta", "bert", "distilbert", "clip"])
def test_the_whole_mask_of_a_text_tower_is_the_one_that_transformers_makes(family):
    tower, texts = text_towers()[family]().eval(), ids_batch().source
    expected = tower(input_ids=texts.tokens, attention_mask=texts.mask.long()).last_hidden_state
    states_BTD, _ = TextTower(tower)(texts)
    torch.testing.assert_close(states_BTD[texts.mask], expected[texts.mask])


def test_slots_read_long_memories_with_fused_attention():
    layer = CrossAttentionLayer(SIZES["hidden_size"], heads=4)
    mask_BM = torch.rand(2, 30) < 0.7
    mask_BM[:, 0] = True
    with Calls() as calls:
        layer(torch.randn(2, 4, 32, requires_grad=True), torch.randn(2, 30, 32), mask_BM)
    assert any("scaled_dot_product_flash" in name for name in calls.names)

"""What samples there are, the text that is drawn for each, how much a pair weighs, and what is refused."""

import numpy as np
import pytest

from pipeline.errors import UsageError
from stages.data.batches import EvaluationData
from stages.data.samples import Shards, build_index, draw_target, pair_weight, source_text
from tests.stages.corpora import caption, row, write_rows, write_training_corpus
from tests.worked_examples import each_example


def index(folder, *, split="train", languages=(), source_language="en", extra_views=(), slot_views=("all",)):
    return build_index(Shards([folder]), split, languages, source_language, extra_views, slot_views)


def list_samples(samples, shards):
    """Samples as (item, id of the source text)."""
    for number, place, text in zip(samples.shards.tolist(), samples.rows.tolist(), samples.texts.tolist(), strict=True):
        item = shards.row(number, place)
        yield item["item_id"], source_text(item, text)[0]


@pytest.fixture
def corpus(tmp_path):
    return write_training_corpus(tmp_path / "corpus", items=20)


def expected_samples(items, extra_views=()):
    for item in items:
        for text in item["captions"]:
            if text["language"] == "en" and text["origin"] != "mt":
                yield item["item_id"], text["caption_id"]
        for view in item["descriptions"]:
            if view["view"] in extra_views:
                yield item["item_id"], f"{item['item_id']}#{view['view']}"


@pytest.mark.parametrize(("setting", "views"), [((), ()), (("detail",), ("detail",)), (("all",), ("short", "detail"))])
def test_samples_are_items_with_each_source_text(tmp_path, setting, views):
    rows = [row(number, "train" if number % 3 else "val") for number in range(2500)]  # more than a batch of rows
    rows[1]["captions"] = rows[1]["captions"][2:]  # no English
    rows[2]["captions"].append(caption("x", "en", "written by a model", "mllm", 0.0))
    rows[4]["captions"].append(caption("y", "en", "translated back", "mt", 0.5))
    rows[5]["captions"], rows[7]["descriptions"] = [], []
    folder = write_rows(tmp_path, rows, shards=2)
    samples = index(folder, extra_views=setting)
    train = [item for item in rows if item["split"] == "train"]
    listed = list(list_samples(samples, Shards([folder])))
    assert sorted(listed) == sorted(expected_samples(train, views)) and len(set(listed)) == len(listed)
    assert samples.languages == ("de", "fr")
    left_out = len(train) - len({item for item, _ in listed})
    assert left_out == (2 if not setting else 0)
    assert samples.notes == ((f"{left_out} items of train have no text in en and are left out",) if left_out else ())


TEXTS = [
    caption("i#0", "en", "a dog", "human", 1.0),
    caption("i#1", "en", "an animal", "human", 1.0),
    caption("i#0>de", "de", "ein Hund", "mt", 0.75),
    caption("i#1>de", "de", "ein Tier", "mt", 0.25),
    caption("i#1>fr", "fr", "un animal", "mt", 0.5),
    caption("i#long>fr", "fr", "une longue description", "mt", 0.9),
    caption("i#zh", "zh", "狗", "human", 1.0),
]
ROW = {"item_id": "i", "captions": TEXTS, "descriptions": [{"view": "long", "text": "a long description"}]}


def drawn(source_id, languages, count=400):
    found = {}
    for number in range(count):
        one = draw_target(ROW, source_id, languages, np.random.default_rng(number))
        found[one["text"]] = found.get(one["text"], 0) + 1
    return found


def test_the_target_is_the_translation_of_that_text_else_any_of_its_language():
    assert drawn("i#0", ("de",)) == {"ein Hund": 400}
    assert drawn("i#1", ("de",)) == {"ein Tier": 400}
    assert set(drawn("i#long", ("fr",))) == {"une longue description"}
    either = drawn("i#0", ("fr",))  # not translated: one of the item's two
    assert set(either) == {"un animal", "une longue description"} and min(either.values()) > 140
    assert drawn("i#0", ("zh",)) == {"狗": 400}
    assert draw_target(ROW, "i#0", ("ja",), np.random.default_rng(0)) is None


def test_a_translation_that_came_with_the_captions_is_linked_by_its_number():
    texts = [caption("a#i#de#4", "de", "vier", "mt", 0.0), caption("a#i#de#10", "de", "zehn", "mt", 0.0)]
    row = {"captions": [*texts, caption("a#i#de#1", "de", "von Hand", "human", 1.0)]}

    def found(source_id, human=True):
        return {draw_target(row, source_id, ("de",), np.random.default_rng(n), human)["text"] for n in range(60)}

    assert found("a#i#en#4") == {"vier"} and found("a#i#en#10", False) == {"zehn"}
    assert found("a#i#en#1") == {"vier", "zehn", "von Hand"}  # a human text is nobody's translation
    assert found("a#i#en#1", False) == {"vier", "zehn"}


def test_without_human_targets_a_language_needs_translations(tmp_path):
    rows = [row(number, "train") for number in range(4)]
    for one in rows:
        one["captions"].append(caption(f"{one['item_id']}#zh#0", "zh", "狗", "human", 1.0))
    shards = Shards([write_rows(tmp_path, rows, shards=1)])
    every = build_index(shards, "train", (), "en", ()).languages
    machine = build_index(shards, "train", (), "en", (), human_targets=False).languages
    assert set(every) - set(machine) == {"zh"} and machine
    with pytest.raises(UsageError, match=r"languages=zh: split 'train' .* Run --stage translate"):
        build_index(shards, "train", ("zh",), "en", (), human_targets=False)


def test_a_view_in_another_language_is_a_target(tmp_path):
    rows = [row(number, "train") for number in range(4)]
    for one in rows:
        one["captions"].append(caption(f"{one['item_id']}#view", "zh", "一只狗。", "mllm", 0.0))
    shards = Shards([write_rows(tmp_path, rows, shards=1)])
    assert "zh" in build_index(shards, "train", (), "en", (), human_targets=False).languages
    target = draw_target(rows[0], source_text(rows[0], 0)[0], ["zh"], np.random.default_rng(0), human_targets=False)
    assert target and target["text"] == "一只狗。"
    texts = [*TEXTS, caption("i#view", "de", "Ein Hund rennt.", "mllm", 0.0)]
    found = [draw_target(ROW | {"captions": texts}, "i#0", ["de"], np.random.default_rng(n)) for n in range(60)]
    assert {text["text"] for text in found if text} == {"ein Hund", "Ein Hund rennt."}
    held_out = EvaluationData([tmp_path], "train", ["zh", "en"])
    assert held_out.texts["zh"][0] == ["一只狗。"] * 4 and len(held_out.notes) == 1 and "flatters" in held_out.notes[0]
    assert "zh" not in EvaluationData([tmp_path], "train").texts
    for one in rows:
        one["captions"].append(caption(f"{one['item_id']}#zh#0", "zh", "狗", "mt", 0.5))
    assert EvaluationData([write_rows(tmp_path / "mt", rows)], "train", ["zh"]).texts["zh"][0] == ["狗"] * 4


def test_a_pair_weighs_as_much_as_its_translation_is_worth():
    machine, human = TEXTS[2], TEXTS[6]
    model = {**machine, "origin": "mllm", "quality": 0.0}
    assert pair_weight(machine, True) == 0.75
    assert pair_weight(machine, False) == pair_weight(human, True) == 1.0
    assert pair_weight(model, True) == 1.0  # no translation, so there is nothing to measure
    assert pair_weight(None, False) == 0.0
    assert pair_weight({**machine, "quality": 0.0}, True) == 1.0  # not measured
    assert [pair_weight({**machine, "quality": quality}, True) for quality in (1.5, -0.5)] == [1.0, 0.0]


@each_example("mistakes_are_told_with_what_there_is", "changes, message")
def test_mistakes_are_told_with_what_there_is(corpus, changes, message):
    with pytest.raises(UsageError, match=message):
        index(corpus, **changes)

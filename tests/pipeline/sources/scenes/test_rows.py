import dataclasses

import pytest

from pipeline.captioning.prompts import BUILT_IN
from pipeline.hashing import canonical_json, short_hash
from pipeline.sources.scenes.corpus import CAPTIONS, Settings, item_rows, plan

SETTINGS = Settings(items=60, val=15, test=15, videos=0.3)


@pytest.fixture(scope="module")
def items(tmp_path_factory):
    media = tmp_path_factory.mktemp("media")
    for split in ("train", "val", "test"):
        (media / split).mkdir()
    return [item_rows(item, SETTINGS, media) for item in plan(SETTINGS)]


def test_no_two_items_are_the_same_in_any_split(items):
    planned = plan(Settings(items=300, val=100, test=100))
    assert len({item.scene for item in planned}) == 500
    assert len({item["items"][0]["sha256"] for item in items}) == 90


def test_training_has_english_and_translations_the_rest_every_language(items):
    for item in items:
        (row,), held_out = item["items"], item["items"][0]["split"] != "train"
        assert {caption["language"] for caption in item["captions"]} == (
            {"en", "de", "cs", "zh"} if held_out else {"en"}
        )
        assert len(item["captions"]) == CAPTIONS * (4 if held_out else 1)
        assert len(item["translations"]) == (0 if held_out else CAPTIONS * 3)
        (packed,) = item["training"]
        ids = [caption["caption_id"] for caption in packed["captions"]]
        first = f"{row['item_id']}#en#0"
        assert first in ids and len(set(ids)) == len(ids) == CAPTIONS * 4
        assert (f"{first}>de" in ids) == (not held_out) and (f"{row['item_id']}#de#0" in ids) == held_out
        assert {caption["origin"] for caption in packed["captions"]} == ({"human"} if held_out else {"human", "mt"})
        assert [view["view"] for view in packed["descriptions"]] == list(BUILT_IN)


def test_texts_and_scenes_of_a_seed_stay(items):
    """Corpora are compared across versions: a change here needs another `corpus.VERSION`."""
    texts = [
        [row["text"] for name in ("captions", "descriptions", "translations") for row in item[name]] for item in items
    ]
    scenes = [dataclasses.asdict(item.scene) for item in plan(SETTINGS)]
    assert short_hash(canonical_json([texts, scenes])) == "0eafd12e2d2f6ca5"

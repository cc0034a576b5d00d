"""A released benchmark, in small and made of scenes, from its folder to a score: pictures, and frame features."""

import json

import numpy as np
import pytest

from beam_runner import run
from pipeline.corpus.table import Table
from pipeline.sources.scenes.drawing import encode
from pipeline.sources.scenes.grammar import caption
from pipeline.sources.scenes.noise import descriptions, translation
from pipeline.sources.scenes.rows import Settings, draw, item_messages, plan
from stages import score, train
from stages.recipes import load_recipes
from tests.pipeline.sources.benchmarks.test_bigfile import write_bigfile
from tests.pipeline.sources.helpers import write

SETTINGS = Settings(items=10, val=4, test=4, size=16, seed=3)
SMALL = [
    "text=tiny", "tiny_width=16", "tiny_layers=1", "embed_dim=16", "num_heads=2", "steps=2", "batch_size=4",
    "micro_batch=2", "validate_every=2", "select_on=val",
]  # fmt: skip
PICTURES = ["media=tiny", "image_size=16"]
OTHERS = ("base", "demo", "scenes")
FAITHFUL = [name for name in load_recipes() if name not in OTHERS and not name.endswith("_best")]


def release(folder, items, language):
    """Texts and lists of the layout of NRCCR and LECCR; the last item has no description, the first no translation of
    its last caption."""

    def lines(split, mark, say):
        return "".join(
            f"{item.item_id}#{mark}#{number} {say(item, number, message)}\n"
            for item in items
            if item.split == split
            for number, message in enumerate(item_messages(item, 3))
        )

    def english(item, number, message):
        return caption(message, "en")

    def human(item, number, message):
        return caption(message, language)

    def machine(item, number, message):
        return translation(message, language, 0.3, 3, f"{item.item_id}#{number}").text

    files = {
        "TextData/smalltrain_enc.caption.txt": lines("train", "enc", english),
        f"TextData/smalltrain_enc2{language}.caption.txt": lines("train", f"enc2{language}", machine).split("\n", 1)[1],
    }
    for split in ("val", "test"):
        files[f"TextData/small{split}_{language}.caption.txt"] = lines(split, language, human)
    for split in ("train", "val", "test"):
        files[f"img_id/{split}_id.txt"] = "".join(f"{item.item_id}\n" for item in items if item.split == split)
    for item in items[:-1]:
        files[f"descriptions/{item.item_id}.txt"] = descriptions(item.scene, 0, 3, item.item_id)["short"]
    return write(folder, files)


def items_of_scenes():
    return [
        type(item)(item.item_id.replace("/", "_").removesuffix(".png"), item.split, item.scene)
        for item in plan(SETTINGS)
    ]


def imported(folder, corpus, language):
    common = ["--output", str(corpus)]
    ingest = ["--stage", "ingest", "--source", "leccr_release", "--input", str(folder), "--subset"]
    translate = ["--stage", "translate", "--translator", "given", "--languages", language, "--quality-encoder", "none"]
    for arguments in (ingest, translate, ["--stage", "pack"]):
        assert run([*arguments, *common]) == 0
    return corpus


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A corpus a language."""

    def made(language):
        folder = tmp_path_factory.mktemp(language)
        items = items_of_scenes()
        release(folder / "set", items, language)
        write(folder / "set", {f"pictures/{item.item_id}.png": encode(draw(item, SETTINGS)) for item in items})
        return imported(folder / "set", folder / "corpus", language)

    return {language: made(language) for language in ("de", "zh")}


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    folder = tmp_path_factory.mktemp("features")
    items = items_of_scenes()
    release(folder / "set", items, "zh")
    frames = {item.item_id: [f"{item.item_id}_{n}" for n in range(2 + at % 3)] for at, item in enumerate(items)}
    write_bigfile(
        folder / "set" / "FeatureData" / "i3d", [name for names in frames.values() for name in names], 5, frames
    )
    return imported(folder / "set", folder / "corpus", "zh")


def test_what_was_published_is_what_is_packed(pictures):
    items, corpus = items_of_scenes(), pictures["de"]
    said = {item.item_id: item_messages(item, 3) for item in items}
    given = {
        f"{item.item_id}#en#{number}": translation(message, "de", 0.3, 3, f"{item.item_id}#{number}").text
        for item in items
        if item.split == "train"
        for number, message in enumerate(said[item.item_id])
    }
    del given[f"{items[0].item_id}#en#0"]  # was not published
    table = Table(corpus, "translations")
    assert {row["caption_id"]: row["text"] for row in table.rows()} == given
    assert table.manifest["not_given"] == {"de": 1} and table.failures() == []
    rows = {row["item_id"]: row for row in Table(corpus, "training").rows()}
    assert rows.keys() == said.keys()
    for item in items:
        row, messages = rows[item.item_id], said[item.item_id]
        found = [(c["language"], c["origin"], c["text"], c["caption_id"]) for c in row["captions"]]
        source = "en" if item.split == "train" else "de"
        written = [
            (source, "human", caption(m, source), f"{item.item_id}#{source}#{n}") for n, m in enumerate(messages)
        ]
        assert found[: len(written)] == written
        for language, origin, text, caption_id in found[len(written) :]:  # less those that a filter dropped
            assert (language, origin, text) == ("de", "mt", given[caption_id.removesuffix(">de")])
        described = [descriptions(item.scene, 0, 3, item.item_id)["short"]] if item is not items[-1] else []
        assert [view["text"] for view in row["descriptions"]] == described


@pytest.mark.parametrize("recipe", FAITHFUL)
def test_a_faithful_recipe_runs_from_the_folder_to_a_score(recipe, pictures, features, tmp_path):
    """The other method, and recipes that have no faithful one, are in test_own_layouts.py."""
    on_features = recipe.startswith(("vatex", "msrvtt"))
    language = "de" if recipe == "multi30k_de" else "zh"
    corpus = features if on_features else pictures[language]
    overrides = [*SMALL, "method=faithful", f"languages={language}", "micro_batch=0"]
    overrides += ["feature_width=16"] if on_features else PICTURES
    given = ["--recipe", recipe, "--data", str(corpus), "--output", str(tmp_path / "run"), *overrides]
    assert train.main(given) == 0
    scores = tmp_path / "scores.json"
    options = ["--checkpoint", str(tmp_path / "run"), "--data", str(corpus), "--split", "test", "--output", str(scores)]
    assert score.main(options) == 0
    found = json.loads(scores.read_text())
    assert found["items"] == 4 and found["languages"].keys() == {language}
    assert (found["checkpoint"]["recipe"], found["checkpoint"]["method"]) == (recipe, "faithful")
    assert np.isfinite(found["mean"]["sum_r"])

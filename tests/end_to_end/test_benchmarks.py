"""The benchmarks as their owners and the LECCR release lay them out, in small: from the folder to a score."""

import io
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import sentencepiece

from beam_runner import run
from model.processing import LeccrProcessor
from pipeline.corpus.table import Table, read_json
from pipeline.quality.rules import RULES
from stages import score, train
from stages.data.batches import TrainingData
from tests.marian import shared_marian
from tests.pipeline.sources.benchmarks import layouts
from tests.pipeline.sources.benchmarks.layouts import FORBIDDEN, MESSAGES, caption

TOKENS = {"cs": ">>ces<<", "de": ">>deu<<", "fr": ">>fra<<", "ja": ">>jpn<<", "zh": ">>cmn<<"}
SHARE_KEPT = 0.4  # of a toy model's translations at least, per language; .63 (ja) to .92 (zh) of them passed the rules
SMALL = [
    "text=tiny", "tiny_width=16", "tiny_layers=1", "embed_dim=16", "num_heads=2", "steps=2", "batch_size=4",
    "micro_batch=2", "validate_every=2", "select_on=val",
]  # fmt: skip
PICTURES, FEATURES = ["media=tiny", "image_size=16"], ["feature_width=16"]
RELEASES = {  # by name: how it is laid out, its language
    "release_de": (layouts.release_with_pictures, "de"),
    "release_zh": (layouts.release_with_pictures, "zh"),
    "release_features": (lambda folder, _: layouts.release_with_frames(folder), "zh"),
}
RECIPES = {  # by recipe: the set, the languages
    "multi30k_cs": ("multi30k", ["cs"]),
    "multi30k_de": ("multi30k", ["de"]),
    "multi30k_fr": ("multi30k", ["fr"]),
    "multi30k_best": ("multi30k", ["cs", "de", "fr"]),
    "mscoco_zh": ("coco_cn", ["zh"]),
    "mscoco_ja": ("stair", ["ja"]),
    "mscoco_best": ("coco_cn", ["ja", "zh"]),
    "vatex_zh": ("vatex", ["zh"]),
    "vatex_best": ("vatex", ["zh"]),
    "msrvtt_cn_zh": ("msrvtt_cn", ["zh"]),
    "msrvtt_cn_best": ("msrvtt_cn", ["zh"]),
    "photos": ("flickr8k", ["zh"]),
}
FAITHFUL = [name for name in RECIPES if not name.endswith("_best")]
ALIKE = {"multi30k_cs", "multi30k_de", "multi30k_fr", "mscoco_zh", "vatex_zh"}  # differ by language from another one
FAITHFUL_ALIKE = {"multi30k_cs", "multi30k_fr", "mscoco_ja"}


def each(recipes, alike):
    """The recipes as parameters; those like another one only in `make test-all`."""
    return [pytest.param(name, marks=pytest.mark.torture) if name in alike else name for name in recipes]


@pytest.fixture(scope="session")
def marian(tmp_path_factory):
    """A toy of five target languages, trained on the captions that it is given."""
    pairs = [
        (f"{token} {caption(message, 'en')}", caption(message, language))
        for language, token in TOKENS.items()
        for messages in MESSAGES
        for message in messages
    ]
    return shared_marian(tmp_path_factory, "layouts/opus-mt-en-mul", pairs, steps=350, batch=32, layers=1)


@pytest.fixture(scope="module")
def packed(request, tmp_path_factory):
    """packed(set) → its corpus, and how it was laid out; each is packed once."""
    known = {}

    def make(name):
        if name not in known:
            folder = tmp_path_factory.mktemp(name)
            stages = [["--stage", "pack"]]
            if name in RELEASES:
                build, languages = RELEASES[name]
                source, layout = "leccr_release", build(folder / "set", languages)
            else:
                source, build, languages = layouts.SETS[name]
                layout = build(folder / "set")
            by = ["given"]
            if not layout.machine:
                marian = request.getfixturevalue("marian")
                by = ["ctranslate2", "--mt-model", str(marian), "--beam-size", "1"]
            translate = ["--stage", "translate", "--languages", languages, "--quality-encoder", "none"]
            stages.insert(0, [*translate, "--translator", *by])
            if name == "multi30k":
                stages.insert(0, ["--stage", "captions", "--captioner", "embedded", "--views", "short"])
            stages.insert(0, ["--stage", "ingest", "--source", source, "--input", str(folder / "set"), "--subset"])
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))  # of converted models
                for arguments in stages:
                    assert run([*arguments, "--output", str(folder / "corpus")]) == 0
            known[name] = folder / "corpus", layout
        return known[name]

    return make


@pytest.mark.parametrize("name", [*layouts.SETS, *RELEASES])
def test_human_captions_and_translations_of_english_ones_are_packed(name, packed):
    corpus, layout = packed(name)
    languages = (RELEASES[name][1] if name in RELEASES else layouts.SETS[name][2]).split(",")
    rows = {row["item_id"]: row for row in Table(corpus, "training").rows()}
    assert {item: row["split"] for item, row in rows.items()} == layout.splits
    table = Table(corpus, "translations")
    pairs = {f"{row['caption_id']}>{row['target_language']}": row for row in table.rows()}
    if layout.machine:
        assert {key: row["text"] for key, row in pairs.items()} == {
            f"{item}#en#{number}>{language}": text
            for item, texts in layout.machine.items()
            for (language, number), text in texts.items()
        }
        english = [key for texts in layout.human.values() for key in texts if key[0] == "en"]
        assert table.manifest["not_given"] == {languages[0]: len(english) - len(pairs)} and table.failures() == []
    else:
        splits = set(layout.splits.values())
        english = {key: text for split in splits for key, text in layout.of_split(split, "en").items()}
        assert {key: row["source_text"] for key, row in pairs.items()} == {
            f"{key}>{language}": text for key, text in english.items() for language in languages
        }
    sound = {key: row["text"] for key, row in pairs.items() if not RULES.keys() & set(row["flags"])}
    for language in languages:
        of_language = [key.endswith(f">{language}") for key in sound]
        assert sum(of_language) > SHARE_KEPT * len(pairs) / len(languages)
    for item, row in rows.items():
        by_origin = {"human": {}, "mt": {}}
        for text in row["captions"]:
            by_origin[text["origin"]][text["caption_id"]] = text["language"], text["text"]
        assert by_origin["human"] == {
            f"{item}#{language}#{number}": (language, text) for (language, number), text in layout.human[item].items()
        }
        assert by_origin["mt"] == {
            key: (key.rpartition(">")[2], text) for key, text in sound.items() if key.startswith(f"{item}#")
        }
        assert [view["view"] for view in row["descriptions"]] == ["short"] * (name == "multi30k") or name in RELEASES
        if name in RELEASES:
            described = [layout.described[item]] if item in layout.described else []
            assert [view["text"] for view in row["descriptions"]] == described
        if layout.features:
            features = np.load(io.BytesIO(row["media"]), allow_pickle=False)
            np.testing.assert_allclose(features, layout.features[item], atol=2e-3)
            assert row["num_frames"] == len(features)


def train_and_score(recipe, corpus, languages, folder, *overrides):
    """The score of a short run on split test, and the queries as rows."""
    given = ["--recipe", recipe, "--data", str(corpus), "--output", str(folder / "run"), *SMALL, *overrides]
    assert train.main(given) == 0
    scores, queries = folder / "scores.json", folder / "queries.parquet"
    options = ["--checkpoint", str(folder / "run"), "--data", str(corpus), "--split", "test", "--languages"]
    options += [",".join(languages), "--output", str(scores), "--per-query", str(queries)]
    assert score.main(options) == 0
    result = json.loads(scores.read_text())
    assert result["checkpoint"]["recipe"] == recipe and result["checkpoint"]["selection"]["split"] == "val"
    assert list(result["languages"]) == languages and np.isfinite(result["mean"]["sum_r"])
    return result, [row for row in pq.read_table(queries).to_pylist() if row["direction"] == "text_to_media"]


@pytest.mark.parametrize("recipe", each(FAITHFUL, FAITHFUL_ALIKE))
def test_a_faithful_recipe_runs_from_the_release_to_a_score(recipe, packed, tmp_path):
    on_features = recipe.startswith(("vatex", "msrvtt"))
    name = "release_features" if on_features else "release_de" if recipe == "multi30k_de" else "release_zh"
    language = RELEASES[name][1]
    media = FEATURES if on_features else PICTURES
    overrides = ["method=faithful", f"languages={language}", "micro_batch=0", "num_heads=1", *media]
    result, _ = train_and_score(recipe, packed(name)[0], [language], tmp_path, *overrides)
    assert result["items"] == 4 and result["checkpoint"]["method"] == "faithful"


@pytest.mark.parametrize("recipe", each(RECIPES, ALIKE))
def test_a_recipe_trains_on_translations_and_is_scored_on_human_captions(recipe, packed, tmp_path, monkeypatch):
    name, languages = RECIPES[recipe]
    corpus, layout = packed(name)
    read: list[str] = []
    read_batch, texts = TrainingData.batch, LeccrProcessor.texts

    def spied_batch(self, *given, **more):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(LeccrProcessor, "texts", lambda of, given: read.extend(given) or texts(of, given))
            return read_batch(self, *given, **more)

    monkeypatch.setattr(TrainingData, "batch", spied_batch)
    media = FEATURES if layout.features else PICTURES
    result, queries = train_and_score(recipe, corpus, languages, tmp_path, *media)
    assert read_json(tmp_path / "run" / "record.json")["languages"] == languages
    machine = {
        text["text"]
        for row in Table(corpus, "training").rows()
        for text in row["captions"]
        if (row["split"], text["origin"]) == ("train", "mt") and text["language"] in languages
    }
    english = set(layout.of_split("train", "en").values())
    assert set(read) <= english | machine | {""}  # "": all translations of an item were dropped
    assert english & set(read) and machine & set(read)
    processor = LeccrProcessor.from_pretrained(tmp_path / "run" / "best")
    learned = sentencepiece.SentencePieceProcessor(model_proto=processor.tokenizer)
    assert not any(FORBIDDEN in learned.id_to_piece(number) for number in range(learned.get_piece_size()))
    width = next(iter(layout.features.values())).shape[1] if layout.features else 0
    assert processor.policy.input_dim == width and (processor.policy.image_size is None) == bool(layout.features)
    assert result["notes"] == [] and result["items"] == sum(split == "test" for split in layout.splits.values())
    for language in languages:
        expected = layout.of_split("test", language)
        assert sorted(row["query_id"] for row in queries if row["language"] == language) == sorted(expected)
        assert result["languages"][language]["texts"] == len(expected)

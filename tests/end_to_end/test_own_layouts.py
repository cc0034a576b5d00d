"""The four benchmarks, in small and made of scenes, as their owners lay them out: from the folder to a score.

Every human text in another language of an item that is trained on ends in FORBIDDEN: no model may ever read it.
"""

import gzip
import io
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import sentencepiece

from beam_runner import run
from model.processing import LeccrProcessor
from pipeline.corpus.table import Table, read_json
from pipeline.media.images import encode_jpeg
from pipeline.quality.rules import RULES
from pipeline.sources.scenes.content import FORMS, Message
from pipeline.sources.scenes.grammar import caption as grammar_caption
from pipeline.sources.scenes.noise import translation
from pipeline.sources.scenes.rows import Settings, draw, item_messages, plan
from stages import score, train
from stages.recipes import load_recipes
from tests.end_to_end.test_benchmarks import PICTURES, SMALL
from tests.marian import make_marian
from tests.pipeline.sources.benchmarks.test_bigfile import write_bigfile
from tests.pipeline.sources.helpers import write

SETTINGS = Settings(items=10, val=3, test=4, size=16, seed=3)
SCENES = plan(SETTINGS)  # train, then val, then test
SPLITS = [item.split for item in SCENES]
SAID = [item_messages(item, 3) for item in SCENES]  # by item three messages
FORBIDDEN = "§"
TOKENS = {"cs": ">>ces<<", "de": ">>deu<<", "fr": ">>fra<<", "ja": ">>jpn<<", "zh": ">>cmn<<"}
KEPT = 0.4  # of a toy model's translations at least, a language; it kept .63 (ja) to .92 (zh) of them
I3D, RESNET = (3, 6), 5  # frames and values of an array; values of a row of a BigFile


SENTENCES = {  # of languages without a grammar; by the number of the message's form
    "fr": (
        "Une voiture rouge se trouve devant la maison.",
        "Trois oiseaux blancs volent au-dessus du lac.",
        "Sur cette photo, on peut voir un grand arbre vert.",
        "Un petit bateau bleu traverse lentement la rivière.",
        "Il y a une fleur jaune à côté de la tasse.",
    ),
    "ja": (
        "赤い車が家の前に止まっています。",
        "三羽の白い鳥が湖の上を飛んでいます。",
        "この写真には大きな緑の木が写っています。",
        "小さな青い船がゆっくりと川を渡っています。",
        "カップの隣に黄色い花があります。",
    ),
}


def caption(message: Message, language: str) -> str:
    """What a person might write."""
    if language in SENTENCES:
        return SENTENCES[language][list(FORMS).index(message.form) % 5]
    return grammar_caption(message, language)


@dataclass
class Laid:
    """A set as it was laid out, and what is to become of it: by item its split and, by language and number, what
    people wrote. `features` by item."""

    folder: Path
    splits: dict[str, str] = field(default_factory=dict)
    human: dict[str, dict[tuple[str, int], str]] = field(default_factory=dict)
    features: dict[str, np.ndarray] = field(default_factory=dict)

    def of_split(self, split: str, language: str) -> dict[str, str]:
        """Human captions by id."""
        return {
            f"{item}#{language}#{number}": text
            for item, its in self.splits.items()
            if its == split
            for (of, number), text in self.human[item].items()
            if of == language
        }


def said(message: Message, language: str, split: str) -> str:
    """What a person writes."""
    return caption(message, language) + FORBIDDEN * (split == "train" and language != "en")


def picture(at: int) -> bytes:
    return encode_jpeg(draw(SCENES[at], SETTINGS)[0])


def lines(texts) -> bytes:
    return "".join(f"{text}\n" for text in texts).encode()


def multi30k(folder: Path) -> Laid:
    """Task 1 has one caption in four languages, task 2 five in two: those of German are of others than the English."""
    laid, files = Laid(folder), {}
    for split, first, second in (
        ("train", "train", "train"), ("val", "val", "val"), ("test", "test_2016_flickr", "test_2016")
    ):  # fmt: skip
        places = [at for at, of in enumerate(SPLITS) if of == split]
        files[f"dataset/data/task1/image_splits/{first}.txt"] = lines(f"{1000 + at}.jpg" for at in places)
        for language in ("en", "de", "fr", "cs"):
            texts = lines(said(SAID[at][0], language, split) for at in places)
            files[f"dataset/data/task1/raw/{first}.{language}.gz"] = gzip.compress(texts)
            for number in range(1, 6) if language in ("en", "de") else ():
                of = (number - 1 if language == "en" else number) % 3
                texts = lines(said(SAID[at][of], language, split) for at in places)
                files[f"dataset/data/task2/raw/{second}.{number}.{language}.gz"] = gzip.compress(texts)
        for at in places:
            item, numbers = f"{1000 + at}.jpg", {"en": (0, 2, 3), "de": (0, 1, 2), "fr": (0,), "cs": (0,)}
            files[f"flickr30k-images/{item}"] = picture(at)
            laid.splits[item] = split
            laid.human[item] = {
                (language, number): said(SAID[at][of], language, split)  # the others say what one says before
                for language in numbers
                for of, number in enumerate(numbers[language])
            }
    write(folder, files)
    return laid


def coco(folder: Path, chinese: bool) -> Laid:
    """COCO 2014, Karpathy's splits, two of its training pictures from val2014, and STAIR's Japanese; with COCO-CN, one
    item fewer and the held-out splits the other way round."""
    laid, files = Laid(folder), {}
    parts = {"train": range(8), "val": range(8, len(SCENES))}
    names = [f"COCO_{'train' if at < 8 else 'val'}2014_{100 + at:012}" for at in range(len(SCENES))]
    for part, places in parts.items():
        images = [{"id": 100 + at, "file_name": f"{names[at]}.jpg"} for at in places]
        for language, name in (("en", f"captions_{part}2014"), ("ja", f"stair_captions_v1.2_{part}")):
            rows = [
                {"image_id": 100 + at, "id": 10 * at + number, "caption": said(message, language, SPLITS[at])}
                for at in reversed(places)
                for number, message in enumerate(SAID[at])
            ]
            files[f"annotations/{name}.json"] = json.dumps({"images": images, "annotations": rows})
    listed = [
        {
            "cocoid": 100 + at,
            "filename": f"{name}.jpg",
            "split": "restval" if 8 <= at < 10 else SPLITS[at],
            "sentences": [{"raw": caption(message, "en")} for message in SAID[at]],
        }
        for at, name in enumerate(names)
    ]
    files["dataset_coco.json"] = json.dumps({"images": listed, "dataset": "coco"})
    files |= {f"{name[5:-13]}/{name}.jpg": picture(at) for at, name in enumerate(names)}
    splits = {"train": "train", "val": "test", "test": "val"} if chinese else {of: of for of in SPLITS}
    for at in range(chinese, len(SCENES)):
        item, split = f"{names[at]}.jpg", splits[SPLITS[at]]
        numbers = {"en": (0, 1, 2), "ja": (0, 1, 2)}
        if chinese:
            numbers["zh"] = (0, 1, 10, 12) if split == "test" else (0, 1)
        laid.splits[item] = split
        laid.human[item] = {
            (language, number): said(SAID[at][number % 10], language, split)
            for language in numbers
            for number in numbers[language]
        }
    if chinese:
        for split in splits:
            its = [name.removesuffix(".jpg") for name, of in laid.splits.items() if of == split]
            files[f"coco-cn/coco-cn_{split}.txt"] = lines(its)
        for name, first in (("human-written", 0), ("manually-translated", 10)):
            files[f"coco-cn/imageid.{name}-caption.txt"] = lines(
                f"{item.removesuffix('.jpg')}#{number - first}\t{text}"
                for item, its in laid.human.items()
                for (language, number), text in its.items()
                if language == "zh" and first <= number < first + 10
            )
    write(folder, files)
    return laid


def vatex(folder: Path) -> Laid:
    """HGR's lists halve the validation videos; the public test has English alone."""
    laid, rows = Laid(folder), {"training": [], "validation": [], "public_test_english": []}
    lists: dict[str, list[str]] = {"val": [], "test": []}
    for at, messages in enumerate([*SAID, SAID[-1][::-1]]):
        split = [*SPLITS, "public_test"][at]
        video = f"{'-_'[at % 2]}video{at:02}_000001_000011"
        part = {"train": "training", "public_test": "public_test_english"}.get(split, "validation")
        its = {"en": [caption(message, "en") for message in messages]}
        if split != "public_test":
            its["zh"] = [said(message, "zh", split) for message in reversed(messages)]
        keys = {"en": "enCap", "zh": "chCap"}
        rows[part].append({"videoID": video} | {keys[language]: texts for language, texts in its.items()})
        if split in lists:
            lists[split].append(f"videos/{video}.mp4")
        laid.splits[video] = split
        laid.human[video] = {
            (language, number): text
            for language, texts in its.items()
            if (split, language) != ("train", "zh")
            for number, text in enumerate(texts)
        }
        laid.features[video] = np.random.default_rng(at).standard_normal(I3D).astype("f4")
        array = folder / ("public_test" if split == "public_test" else "trainval") / f"{video}.npy"
        array.parent.mkdir(parents=True, exist_ok=True)
        np.save(array, laid.features[video][None])
    write(folder, {f"vatex_{part}_v1.0.json": json.dumps(found) for part, found in rows.items()})
    for split, videos in lists.items():
        np.save(folder / f"{split}_names.npy", videos)
    return laid


def msrvtt_cn(folder: Path) -> Laid:
    """Google's translations of the training captions, as NRCCR has them, and Chinese ones by people, which the set has
    for all of its videos."""
    laid, texts = Laid(folder), {mark: [] for mark in ("train", "train_google_enc2zh", "train_zh", "val_zh", "test_zh")}
    frames, videos, sentences = {}, [], []
    for at, (split, messages) in enumerate(zip(SPLITS, SAID, strict=True)):
        video = f"video{at}"
        videos.append({"video_id": video, "split": "validate" if split == "val" else split})
        sentences += [{"video_id": video, "caption": caption(message, "en")} for message in messages]
        frames[video] = [f"{video}_{number}" for number in range(2 + at % 3)]
        laid.splits[video] = split
        laid.human[video] = {("en", number): caption(message, "en") for number, message in enumerate(messages)}
        for number, message in enumerate(messages):
            texts[f"{split}_zh"].append(f"{video}#zh#{number} {said(message, 'zh', split)}")
            if split == "train":
                texts["train"].append(f"{video}#enc#{number} {caption(message, 'en')}")
                texts["train_google_enc2zh"].append(f"{video}#enc2zh#{number} {google(video, number, message)}")
            else:
                laid.human[video]["zh", number] = caption(message, "zh")
    files = {f"TextData/msrvtt10kcn{mark}.caption.txt": lines(its) for mark, its in texts.items()}
    write(folder, files | {"train_val_test_videodatainfo.json": json.dumps({"videos": videos, "sentences": sentences})})
    ids = [frame for its in frames.values() for frame in its]
    write_bigfile(folder / "FeatureData" / "resnext101-resnet152", ids, RESNET, frames)
    for video, its in frames.items():
        laid.features[video] = np.repeat(np.array([[ids.index(frame)] for frame in its], "f4"), RESNET, axis=1)
    return laid


def google(video: str, number: int, message: Message) -> str:
    return translation(message, "zh", 0.3, 3, f"{video}#{number}").text


SETS = {  # by name: the source, how it is laid out, the languages that it is translated into
    "multi30k": ("multi30k", multi30k, "cs,de,fr"),
    "coco_cn": ("mscoco", lambda folder: coco(folder, chinese=True), "ja,zh"),
    "stair": ("mscoco", lambda folder: coco(folder, chinese=False), "ja"),
    "vatex": ("vatex", vatex, "zh"),
    "msrvtt_cn": ("msrvtt_cn", msrvtt_cn, "zh"),
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
}


@pytest.fixture(scope="module")
def marian(tmp_path_factory):
    """A toy of five target languages, which has seen the captions that it is given."""
    pairs = [
        (f"{token} {caption(message, 'en')}", caption(message, language))
        for language, token in TOKENS.items()
        for messages in SAID
        for message in messages
    ]
    return make_marian(tmp_path_factory.mktemp("models") / "opus-mt-en-mul", pairs, steps=350, batch=32, layers=1)


@pytest.fixture(scope="module")
def made(marian, tmp_path_factory):
    """made(set) → its corpus, packed, and how it was laid out; each is made once."""
    known = {}

    def make(name):
        if name not in known:
            folder = tmp_path_factory.mktemp(name)
            source, layout, languages = SETS[name]
            laid = layout(folder / "set")
            by = ["given"] if name == "msrvtt_cn" else ["ctranslate2", "--mt-model", str(marian), "--beam-size", "1"]
            ingest = ["--stage", "ingest", "--source", source, "--input", str(laid.folder), "--subset"]
            describe = ["--stage", "captions", "--captioner", "embedded", "--views", "short"]
            translate = ["--stage", "translate", "--languages", languages, "--translator", *by]
            stages = [ingest, [*translate, "--quality-encoder", "none"], ["--stage", "pack"]]
            if name == "multi30k":
                stages.insert(1, describe)
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))  # of converted models
                for arguments in stages:
                    assert run([*arguments, "--output", str(folder / "corpus")]) == 0
            known[name] = folder / "corpus", laid
        return known[name]

    return make


@pytest.mark.parametrize("name", SETS)
def test_what_people_wrote_is_packed_and_the_english_of_it_translated(name, made):
    corpus, laid = made(name)
    languages = SETS[name][2].split(",")
    rows = {row["item_id"]: row for row in Table(corpus, "training").rows()}
    assert {item: row["split"] for item, row in rows.items()} == laid.splits
    english = {key: text for split in set(laid.splits.values()) for key, text in laid.of_split(split, "en").items()}
    if name == "msrvtt_cn":
        english = laid.of_split("train", "en")
    pairs = {f"{row['caption_id']}>{row['target_language']}": row for row in Table(corpus, "translations").rows()}
    assert {key: row["source_text"] for key, row in pairs.items()} == {
        f"{key}>{language}": text for key, text in english.items() for language in languages
    }
    sound = {key: row["text"] for key, row in pairs.items() if not RULES.keys() & set(row["flags"])}
    for language in languages:
        assert sum(key.endswith(f">{language}") for key in sound) > KEPT * len(english)
    for item, row in rows.items():
        by_origin = {"human": {}, "mt": {}}
        for said_of_it in row["captions"]:
            by_origin[said_of_it["origin"]][said_of_it["caption_id"]] = said_of_it["language"], said_of_it["text"]
        assert by_origin["human"] == {
            f"{item}#{language}#{number}": (language, text) for (language, number), text in laid.human[item].items()
        }
        assert by_origin["mt"] == {
            key: (key.rpartition(">")[2], text) for key, text in sound.items() if key.startswith(f"{item}#")
        }
        assert [view["view"] for view in row["descriptions"]] == (["short"] if name == "multi30k" else [])
        if laid.features:
            features = np.load(io.BytesIO(row["media"]), allow_pickle=False)
            np.testing.assert_allclose(features, laid.features[item], atol=2e-3)
            assert row["num_frames"] == len(features)


def test_every_recipe_of_the_sets_is_here():
    assert RECIPES.keys() == {
        name for name in load_recipes() if name.startswith(tuple(source for source, *_ in SETS.values()))
    }


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_trains_on_translations_and_is_scored_on_what_people_wrote(recipe, made, tmp_path, monkeypatch):
    name, languages = RECIPES[recipe]
    corpus, laid = made(name)
    read: list[str] = []
    texts = LeccrProcessor.texts

    def spy(self, given, training=False):
        read.extend(given if training else ())
        return texts(self, given, training)

    monkeypatch.setattr(LeccrProcessor, "texts", spy)
    overrides = [*SMALL, *(["feature_width=16"] if laid.features else PICTURES)]
    given = ["--recipe", recipe, "--data", str(corpus), "--output", str(tmp_path / "run"), *overrides]
    assert train.main(given) == 0
    assert read_json(tmp_path / "run" / "record.json")["languages"] == languages
    packed = [row for row in Table(corpus, "training").rows() if row["split"] == "train"]
    machine = {
        text["text"]
        for row in packed
        for text in row["captions"]
        if text["origin"] == "mt" and text["language"] in languages
    }
    english = set(laid.of_split("train", "en").values())
    assert set(read) <= english | machine | {""}  # "": all translations of an item were dropped
    assert english & set(read) and machine & set(read)
    processor = LeccrProcessor.from_pretrained(tmp_path / "run" / "best")
    learned = sentencepiece.SentencePieceProcessor(model_proto=processor.tokenizer)
    pieces = [learned.id_to_piece(number) for number in range(learned.get_piece_size())]
    assert not any(FORBIDDEN in piece for piece in pieces)
    width = next(iter(laid.features.values())).shape[1] if laid.features else 0
    assert processor.policy.input_dim == width and (processor.policy.image_size is None) == bool(laid.features)

    scores, queries = tmp_path / "scores.json", tmp_path / "queries.parquet"
    options = ["--checkpoint", str(tmp_path / "run"), "--data", str(corpus), "--split", "test", "--languages"]
    options += [",".join(languages), "--output", str(scores), "--per-query", str(queries)]
    assert score.main(options) == 0
    found = json.loads(scores.read_text())
    assert found["checkpoint"]["recipe"] == recipe and found["checkpoint"]["selection"]["split"] == "val"
    assert list(found["languages"]) == languages and found["notes"] == []
    assert found["items"] == sum(split == "test" for split in laid.splits.values())
    asked = [row for row in pq.read_table(queries).to_pylist() if row["direction"] == "text_to_media"]
    for language in languages:
        wanted = laid.of_split("test", language)
        assert sorted(row["query_id"] for row in asked if row["language"] == language) == sorted(wanted)
        assert found["languages"][language]["texts"] == len(wanted)
    assert np.isfinite(found["mean"]["sum_r"])

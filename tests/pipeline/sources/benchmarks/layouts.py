"""The benchmarks in small, made of scenes and laid out as their owners and the LECCR release distribute them.

Every human text in another language of an item that is trained on ends in FORBIDDEN: no model may ever read it.
"""

import gzip
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import yaml

from pipeline.media.images import encode_jpeg
from pipeline.sources.scenes.content import FORMS, Message
from pipeline.sources.scenes.corpus import Settings, item_messages, plan
from pipeline.sources.scenes.drawing import frames
from pipeline.sources.scenes.grammar import caption as grammar_caption
from pipeline.sources.scenes.noise import descriptions, translation
from tests.pipeline.sources.helpers import write

SETTINGS = Settings(items=10, val=3, test=4, size=16, seed=3)
SCENES = plan(SETTINGS)  # train, then val, then test
SPLITS = [item.split for item in SCENES]
MESSAGES = [item_messages(item, 3) for item in SCENES]  # by item three messages
FORBIDDEN = "§"
I3D, RESNET = (3, 6), 5  # frames and values of an array; values of a row of a BigFile
# Captions in languages without a grammar, by the number of the message's form.
SENTENCES = yaml.safe_load(Path(__file__).with_name("sentences.yaml").read_text("utf-8"))


@dataclass
class Layout:
    """A set on disk, and what is to become of it.

    By item its split and, by language and number, what people wrote and what came translated; its features and its
    description, if any.
    """

    folder: Path
    splits: dict[str, str] = field(default_factory=dict)
    human: dict[str, dict[tuple[str, int], str]] = field(default_factory=dict)
    machine: dict[str, dict[tuple[str, int], str]] = field(default_factory=dict)
    features: dict[str, np.ndarray] = field(default_factory=dict)
    described: dict[str, str] = field(default_factory=dict)

    def of_split(self, split: str, language: str) -> dict[str, str]:
        """Human captions by id."""
        return {
            f"{item}#{language}#{number}": text
            for item, its in self.splits.items()
            if its == split
            for (of, number), text in self.human[item].items()
            if of == language
        }


def caption(message: Message, language: str) -> str:
    """What a person might write."""
    if language in SENTENCES:
        return SENTENCES[language][list(FORMS).index(message.form) % 5]
    return grammar_caption(message, language)


def human_text(message: Message, language: str, split: str) -> str:
    return caption(message, language) + FORBIDDEN * (split == "train" and language != "en")


def machine_text(item: str, number: int, message: Message, language: str) -> str:
    return translation(message, language, 0.3, 3, f"{item}#{number}")[0]


def picture(at: int) -> bytes:
    return encode_jpeg(frames(SCENES[at].scene, SETTINGS.size, np.random.default_rng(at))[0])


def lines(texts: Iterable[str]) -> bytes:
    return "".join(f"{text}\n" for text in texts).encode()


def write_bigfile(folder, ids, dim=3, videos=None):
    """Row N of the matrix is full of N."""
    folder.mkdir(parents=True, exist_ok=True)
    matrix = np.repeat(np.arange(len(ids), dtype="<f4")[:, None], dim, axis=1)
    (folder / "feature.bin").write_bytes(matrix.tobytes())
    (folder / "shape.txt").write_text(f"{len(ids)} {dim}")
    (folder / "id.txt").write_bytes(" ".join(ids).encode("iso-8859-1"))
    if videos is not None:
        (folder / "video2frames.txt").write_text(repr(videos), "utf-8")
    return folder


def write_frames(layout: Layout, name: str) -> None:
    """Some frames of each item in one BigFile."""
    frames = {item: [f"{item}_{number}" for number in range(2 + at % 3)] for at, item in enumerate(layout.splits)}
    ids = [frame for its in frames.values() for frame in its]
    write_bigfile(layout.folder / "FeatureData" / name, ids, RESNET, frames)
    for item, its in frames.items():
        layout.features[item] = np.repeat(np.array([[ids.index(frame)] for frame in its], "f4"), RESNET, axis=1)


def multi30k(folder: Path) -> Layout:
    """Task 1 has one caption in four languages, task 2 five in two: those of German are of others than the English."""
    layout, files = Layout(folder), {}
    for split, first, second in (
        ("train", "train", "train"), ("val", "val", "val"), ("test", "test_2016_flickr", "test_2016")
    ):  # fmt: skip
        places = [at for at, of in enumerate(SPLITS) if of == split]
        files[f"dataset/data/task1/image_splits/{first}.txt"] = lines(f"{1000 + at}.jpg" for at in places)
        for language in ("en", "de", "fr", "cs"):
            texts = lines(human_text(MESSAGES[at][0], language, split) for at in places)
            files[f"dataset/data/task1/raw/{first}.{language}.gz"] = gzip.compress(texts)
            for number in range(1, 6) if language in ("en", "de") else ():
                of = (number - 1 if language == "en" else number) % 3
                texts = lines(human_text(MESSAGES[at][of], language, split) for at in places)
                files[f"dataset/data/task2/raw/{second}.{number}.{language}.gz"] = gzip.compress(texts)
        for at in places:
            item, numbers = f"{1000 + at}.jpg", {"en": (0, 2, 3), "de": (0, 1, 2), "fr": (0,), "cs": (0,)}
            files[f"flickr30k-images/{item}"] = picture(at)
            layout.splits[item] = split
            layout.human[item] = {
                (language, number): human_text(MESSAGES[at][of], language, split)  # others repeat one of these
                for language in numbers
                for of, number in enumerate(numbers[language])
            }
    write(folder, files)
    return layout


def coco(folder: Path, chinese: bool = False) -> Layout:
    """COCO 2014, Karpathy's splits, two of its training pictures from val2014, and STAIR's Japanese; with COCO-CN, one
    item fewer and the held-out splits the other way round."""
    layout, files = Layout(folder), {}
    names = [f"COCO_{'train' if at < 8 else 'val'}2014_{100 + at:012}" for at in range(len(SCENES))]
    for part, places in {"train": range(8), "val": range(8, len(SCENES))}.items():
        images = [{"id": 100 + at, "file_name": f"{names[at]}.jpg"} for at in places]
        for language, name in (("en", f"captions_{part}2014"), ("ja", f"stair_captions_v1.2_{part}")):
            rows = [
                {"image_id": 100 + at, "id": 10 * at + number, "caption": human_text(message, language, SPLITS[at])}
                for at in reversed(places)
                for number, message in enumerate(MESSAGES[at])
            ]
            files[f"annotations/{name}.json"] = json.dumps({"images": images, "annotations": rows})
    listed = [
        {
            "cocoid": 100 + at,
            "filename": f"{name}.jpg",
            "split": "restval" if 8 <= at < 10 else SPLITS[at],
            "sentences": [{"raw": caption(message, "en")} for message in MESSAGES[at]],
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
        layout.splits[item] = split
        layout.human[item] = {
            (language, number): human_text(MESSAGES[at][number % 10], language, split)
            for language in numbers
            for number in numbers[language]
        }
    if chinese:
        for split in splits:
            its = [name.removesuffix(".jpg") for name, of in layout.splits.items() if of == split]
            files[f"coco-cn/coco-cn_{split}.txt"] = lines(its)
        for name, first in (("human-written", 0), ("manually-translated", 10)):
            files[f"coco-cn/imageid.{name}-caption.txt"] = lines(
                f"{item.removesuffix('.jpg')}#{number - first}\t{text}"
                for item, its in layout.human.items()
                for (language, number), text in its.items()
                if language == "zh" and first <= number < first + 10
            )
    write(folder, files)
    return layout


def coco_cn(folder: Path) -> Layout:
    return coco(folder, chinese=True)


def vatex(folder: Path) -> Layout:
    """HGR's lists halve the validation videos; the public test has only English."""
    layout, rows = Layout(folder), {"training": [], "validation": [], "public_test_english": []}
    lists: dict[str, list[str]] = {"val": [], "test": []}
    for at, messages in enumerate([*MESSAGES, MESSAGES[-1][::-1]]):
        split = [*SPLITS, "public_test"][at]
        video = f"{'-_'[at % 2]}video{at:02}_000001_000011"
        part = {"train": "training", "public_test": "public_test_english"}.get(split, "validation")
        its = {"en": [caption(message, "en") for message in messages]}
        if split != "public_test":
            its["zh"] = [human_text(message, "zh", split) for message in reversed(messages)]
        keys = {"en": "enCap", "zh": "chCap"}
        rows[part].append({"videoID": video} | {keys[language]: texts for language, texts in its.items()})
        if split in lists:
            lists[split].append(f"videos/{video}.mp4")
        layout.splits[video] = split
        layout.human[video] = {
            (language, number): text
            for language, texts in its.items()
            if (split, language) != ("train", "zh")
            for number, text in enumerate(texts)
        }
        layout.features[video] = np.random.default_rng(at).standard_normal(I3D).astype("f4")
        array = folder / ("public_test" if split == "public_test" else "trainval") / f"{video}.npy"
        array.parent.mkdir(parents=True, exist_ok=True)
        np.save(array, layout.features[video][None])
    write(folder, {f"vatex_{part}_v1.0.json": json.dumps(listed) for part, listed in rows.items()})
    for split, videos in lists.items():
        (folder / f"{split}_names.txt").write_text("\n".join(videos))
    return layout


def msrvtt_cn(folder: Path) -> Layout:
    """Google's translations of the training captions, as NRCCR has them, and Chinese ones by people, which the set has
    for all of its videos."""
    layout = Layout(folder)
    texts = {mark: [] for mark in ("train", "train_google_enc2zh", "train_zh", "val_zh", "test_zh")}
    videos, sentences = [], []
    for at, (split, messages) in enumerate(zip(SPLITS, MESSAGES, strict=True)):
        video = f"video{at}"
        videos.append({"video_id": video, "split": "validate" if split == "val" else split})
        sentences += [{"video_id": video, "caption": caption(message, "en")} for message in messages]
        layout.splits[video] = split
        layout.human[video] = {("en", number): caption(message, "en") for number, message in enumerate(messages)}
        for number, message in enumerate(messages):
            texts[f"{split}_zh"].append(f"{video}#zh#{number} {human_text(message, 'zh', split)}")
            if split == "train":
                machine = machine_text(video, number, message, "zh")
                texts["train"].append(f"{video}#enc#{number} {caption(message, 'en')}")
                texts["train_google_enc2zh"].append(f"{video}#enc2zh#{number} {machine}")
                layout.machine.setdefault(video, {})["zh", number] = machine
            else:
                layout.human[video]["zh", number] = caption(message, "zh")
    files = {f"TextData/msrvtt10kcn{mark}.caption.txt": lines(its) for mark, its in texts.items()}
    write(folder, files | {"train_val_test_videodatainfo.json": json.dumps({"videos": videos, "sentences": sentences})})
    write_frames(layout, "resnext101-resnet152")
    return layout


def flickr8k(folder: Path) -> Layout:
    """Flickr8k-CN's texts with the owners' lists; the English file repeats what the owners' has, numbered otherwise."""
    layout, files = Layout(folder), {}
    texts: dict[str, list[str]] = {"token": [], "enc": [], "zhc": [], "zhb": [], "zhg": []}
    for at, (split, messages) in enumerate(zip(SPLITS, MESSAGES, strict=True)):
        item = f"{1000 + at}_a.jpg"
        layout.splits[item] = split
        human, machine = layout.human.setdefault(item, {}), layout.machine.setdefault(item, {})
        for number, message in enumerate(messages):
            translated = machine_text(item, number, message, "zh")
            human["en", number] = caption(message, "en")
            texts["token"].append(f"{item}#{2 - number}\t{caption(message, 'en')}")
            texts["enc"].append(f"{item}#enc#{number} {caption(message, 'en')}")
            texts["zhc"].append(f"{item}#zhc#{number} {human_text(message, 'zh', split)}")
            texts["zhb"].append(f"{item}#zhb#{number} {translated}")
            texts["zhg"].append(f"{item}#zhg#{number} {translated}{FORBIDDEN}")
            if split == "train":
                machine["zh", number] = translated
            else:
                human["zh", number] = caption(message, "zh")
        files[f"Flicker8k_Dataset/{item}"] = picture(at)
    texts["token"].append("spare_b.jpg.1#0\tOf a picture that is in no split.")
    for split, name in (("train", "train"), ("val", "dev"), ("test", "test")):
        names = [item for item, of in layout.splits.items() if of == split]
        files[f"Flickr_8k.{name}Images.txt"] = lines(names)
    files["Flickr8k.token.txt"] = lines(texts["token"])
    for mark, name in (("enc", "enc.caption.txt"), ("zhc", "zhc.caption.txt")):
        files[f"data/flickr8k{name}"] = lines(texts[mark])
    files["data/flickr8kzhb.caption.txt.v20160815"] = lines(texts["zhb"])
    files["data/flickr8kzhg.caption.txt.v20160816"] = lines(texts["zhg"])
    write(folder, files)
    return layout


def karpathy(splits: dict[str, str], texts: dict[str, list[str]]) -> str:
    """A file in the layout of Karpathy's `dataset_*.json`."""
    images = [
        {"filename": item, "split": split, "sentences": [{"raw": text, "tokens": text.split()} for text in texts[item]]}
        for item, split in splits.items()
    ]
    return json.dumps({"images": images, "dataset": "made"})


def flickr30k(folder: Path) -> Layout:
    """Karpathy's file, and the pictures in a folder of their own."""
    layout, texts = Layout(folder), {}
    for at, (split, messages) in enumerate(zip(SPLITS, MESSAGES, strict=True)):
        item = f"{2000 + at}.jpg"
        layout.splits[item] = split
        texts[item] = [caption(message, "en") for message in messages]
        layout.human[item] = {("en", number): text for number, text in enumerate(texts[item])}
        write(folder, {f"flickr30k-images/{item}": picture(at)})
    write(folder, {"dataset_flickr30k.json": karpathy(layout.splits, texts)})
    return layout


IDS = ("a#b", "-Ptf_000122_000132", "1000092795", "x.y", *(f"video{at}" for at in range(4, len(SCENES) - 1)), "z")


def release(
    folder: Path,
    language: str = "zh",
    *,
    lists: str = "img_id",
    suffix: str = "",
    generic: bool = False,
    test: str = "test_id.txt",
    first: int = 0,
) -> Layout:
    """Texts, lists and descriptions of the LECCR release, without media.

    Ids are those that the sets have: with #, with a leading dash, ending in what looks like a frame's number. The last
    item has no description, the first no translation of its first caption.
    """
    layout = Layout(folder)
    texts: dict[str, list[str]] = {
        "train_enc": [], f"train_google_enc2{language}": [], f"val_{language}": [], f"test_{language}_2016": []
    }  # fmt: skip
    for at, (item, split) in enumerate(zip(IDS, SPLITS, strict=True)):
        layout.splits[item] = split
        human, machine = layout.human.setdefault(item, {}), layout.machine.setdefault(item, {})
        for number, message in enumerate(MESSAGES[at], first):
            if split == "train":
                human["en", number] = caption(message, "en")
                texts["train_enc"].append(f"{item}{suffix}#enc#{number} {human['en', number]}")
                if at or number > first:
                    machine[language, number] = machine_text(item, number, message, language)
                    name = f"train_google_enc2{language}"
                    texts[name].append(f"{item}{suffix}#enc2{language}#{number} {machine[language, number]}")
            else:
                human[language, number] = caption(message, language)
                name = f"{split}_{language}" + "_2016" * (split == "test")
                mark = "enc" if generic else language
                texts[name].append(f"{item}{suffix}#{mark}#{number} {human[language, number]}")
        layout.described[item] = descriptions(SCENES[at].scene, 0, 3, item)["short"]
    del layout.described[IDS[-1]]
    files = {f"TextData/small{name}.caption.txt": lines(its) for name, its in texts.items()}
    for split, name in (("train", "train_id.txt"), ("val", "val_id.txt"), ("test", test)):
        ids = [f"{item}{suffix}" for item, of in layout.splits.items() if of == split]
        files[f"{lists}/{name}"] = "\n".join(ids)
    write(folder, files | {f"descriptions/{item}.txt": f"{text}\n" for item, text in layout.described.items()})
    return layout


def release_with_pictures(folder: Path, language: str = "zh", **changes) -> Layout:
    layout = release(folder, language, **changes)
    write(folder, {f"pictures/{item}.jpg": picture(at) for at, item in enumerate(IDS)})
    return layout


def release_with_frames(folder: Path) -> Layout:
    layout = release(folder, lists="video_id")
    write_frames(layout, "i3d")
    return layout


SETS = {  # by name: the source, how it is laid out, the languages that it is translated into
    "multi30k": ("multi30k", multi30k, "cs,de,fr"),
    "coco_cn": ("mscoco", coco_cn, "ja,zh"),
    "stair": ("mscoco", coco, "ja"),
    "vatex": ("vatex", vatex, "zh"),
    "msrvtt_cn": ("msrvtt_cn", msrvtt_cn, "zh"),
    "flickr8k": ("flickr8k", flickr8k, "zh"),
}

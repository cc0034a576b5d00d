"""The corpus of bench/photos.py: Flickr8k with captions by people in place of an MLLM's descriptions.

FOLDER has the text files of Flickr8k-CN (github.com/li-xirong/flickr8kcn, folder `data`): lists of the splits, and the
captions of FILES; and `images/`, Flickr8k's pictures.

Two of the English captions of a picture are its descriptions and are withheld everywhere else. All regimes are views of
one corpus, so that frozen towers read pictures and texts once:

    strong-0, strong-1      the two captions
    noisyD-0, noisyD-1      the same in draw D: some are another picture's, and some content words are missing
    bad                     the second caption, but another picture's half of the time: a describer that harms

The views of `bench.photos_captioner`, captioner-0 to captioner-3, are in a corpus of their own with the same captions,
and its first view is in a third one, next to strong-0.
"""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from PIL import Image

from bench.common import stage
from pipeline.corpus.schema import SCHEMAS
from pipeline.corpus.table import Table, complete, shard_name, write_manifest, write_shard
from pipeline.hashing import file_hash, fingerprint
from pipeline.sources.benchmarks.flickr8k import LINE
from stages.ingest import Ingest

SPLITS = ("train", "val", "test")
ENGLISH, CHINESE = "flickr8kenc.caption.txt", "flickr8kzhc.caption.txt"  # by people
FILES = (ENGLISH, CHINESE, "flickr8kzhb.caption.txt.v20160815")  # the last: the English captions by a machine
SHARD_ROWS = 1_000
PIXELS = 224  # of the shorter side, as packed
VIEWS = 2  # captions of a picture that are its descriptions
DRAWS = 3  # of noisy
CAPTIONER_VIEWS = 4  # the likeliest caption, and three that avoid the words of those before
WRONG, DROPPED = 0.15, 0.25  # shares of descriptions of another picture, of content words that are missing
BAD = 0.5  # share of the view `bad` that is another picture's
# Words that carry no content; all others can be dropped.
FUNCTION_WORDS = """
    a an the of in on at to and or with is are was were be being been by for from as his her its their it he she they
    them this that these those while up down out into over near next through behind front under off who which two one
    some other another there
"""

Row = dict[str, Any]


def strong_views() -> tuple[str, ...]:
    """Names of the views of *strong*."""
    return tuple(f"strong-{number}" for number in range(VIEWS))


def noisy_views(draw: int) -> tuple[str, ...]:
    """Names of the views of a draw of *noisy*."""
    return tuple(f"noisy{draw}-{number}" for number in range(VIEWS))


def captioner_views() -> tuple[str, ...]:
    """Names of the captioner's views."""
    return tuple(f"captioner-{number}" for number in range(CAPTIONER_VIEWS))


def make_corpus(data: Path, corpus: Path) -> Path:
    """Make the corpus from FOLDER with the tables of the project, and pack it. A finished one is left as it is."""
    if complete(corpus, "training"):
        return corpus
    rows, splits = write_captions(data, corpus)
    english = read_captions(data, ENGLISH)
    withheld = {name: withheld_captions(name, len(english[name])) for names in splits.values() for name in names}
    views = describe(splits, english, withheld)
    rows["descriptions"] = [
        description_row(row["item_id"], view, text)
        for row in rows["items"]
        for view, text in views[row["item_id"]].items()
    ]
    write_table(corpus, "descriptions", rows)
    stage("pack", corpus, "--image-size", PIXELS)
    return corpus


def make_mixed_corpus(data: Path, captioner: Path, corpus: Path) -> Path:
    """Make the corpus with a view by people and one of the captioner's corpus. A finished one is left as it is."""
    if complete(corpus, "training"):
        return corpus
    rows, _ = write_captions(data, corpus)
    english, view = read_captions(data, ENGLISH), captioner_views()[0]
    rows["descriptions"] = [row for row in Table(captioner, "descriptions").rows() if row["view"] == view]
    for row in rows["items"]:
        texts = english[row["item_id"]]
        text = texts[withheld_captions(row["item_id"], len(texts))[0]]
        rows["descriptions"].append(description_row(row["item_id"], strong_views()[0], text))
    write_table(corpus, "descriptions", rows)
    stage("pack", corpus, "--image-size", PIXELS)
    return corpus


def write_captions(data: Path, corpus: Path) -> tuple[dict[str, list[Row]], dict[str, list[str]]]:
    """Write the tables `items` and `captions`; returns their rows and the names of the pictures by split."""
    splits = read_splits(data)
    english, human, machine = (read_captions(data, name) for name in FILES)
    rows: dict[str, list[Row]] = {"items": [], "captions": []}
    for split, names in splits.items():
        for name in names:
            rows["items"].append(item_row((data / "images" / name).resolve(), split))
            withheld = withheld_captions(name, len(english[name]))
            used = [number for number in range(len(english[name])) if number not in withheld]
            target = [("mt", machine, used)] if split == "train" else [("human", human, range(len(human[name])))]
            for language, origin, texts, numbers in [("en", "human", english, used), *(("zh", *row) for row in target)]:
                rows["captions"] += [
                    caption_row(name, language, number, texts[name][number], origin, split) for number in numbers
                ]
    for table in rows:
        write_table(corpus, table, rows)
    return rows, splits


def read_splits(data: Path) -> dict[str, list[str]]:
    """The names of the pictures of each split."""
    lists = {split: (data / f"flickr8k{split}.txt").read_text("utf-8").split() for split in SPLITS}
    return {split: [f"{name}.jpg" for name in names] for split, names in lists.items()}


def read_captions(data: Path, name: str) -> dict[str, list[str]]:
    """The captions of each picture in one of FILES, by their number."""
    numbered: dict[str, dict[int, str]] = {}
    for line in (data / name).read_text("utf-8").splitlines():
        if match := LINE.fullmatch(line.strip()):
            numbered.setdefault(match["item"], {})[int(match["number"])] = match["text"].strip()
    return {picture: [texts[number] for number in sorted(texts)] for picture, texts in numbered.items()}


def withheld_captions(name: str, count: int) -> list[int]:
    """Numbers of the captions that are a picture's descriptions."""
    return random.Random(f"withheld {name}").sample(range(count), VIEWS)


def describe(
    splits: Mapping[str, Sequence[str]], english: Mapping[str, Sequence[str]], withheld: Mapping[str, Sequence[int]]
) -> dict[str, dict[str, str]]:
    """The descriptions of each picture by view, of people and made worse. Another picture is one of the same split."""
    own = {name: [english[name][number] for number in numbers] for name, numbers in withheld.items()}
    views: dict[str, dict[str, str]] = {name: dict(zip(strong_views(), own[name], strict=True)) for name in own}
    for names in splits.values():
        for name in names:
            for draw in range(DRAWS):
                for number, view in enumerate(noisy_views(draw)):
                    generator = random.Random(f"{view} {name}")
                    source = generator.choice(names) if generator.random() < WRONG else name
                    views[name][view] = drop_words(own[source][number], generator)
            generator = random.Random(f"bad {name}")
            views[name]["bad"] = own[generator.choice(names) if generator.random() < BAD else name][1]
    return views


def drop_words(text: str, generator: random.Random) -> str:
    """The text without some of its content words."""
    function_words = FUNCTION_WORDS.split()
    words = []
    for word in text.split():
        is_content = word.isalpha() and word.lower() not in function_words
        if not is_content or generator.random() >= DROPPED:
            words.append(word)
    return " ".join(words) or "something"


def item_row(path: Path, split: str) -> Row:
    """A row of `items`."""
    with Image.open(path) as picture:
        width, height = picture.size
    row = {"item_id": path.name, "media_type": "image", "uri": str(path), "sha256": file_hash(path), "width": width}
    row |= {"height": height, "num_frames": 1, "duration_s": None, "split": split}
    return row | {"source": "flickr8k", "license": "research use only"}


def caption_row(name: str, language: str, number: int, text: str, origin: str, split: str) -> Row:
    """A row of `captions`."""
    row = {"caption_id": f"{name}#{language}#{number}", "item_id": name, "language": language}
    return row | {"text": text, "origin": origin, "split": split}


def description_row(name: str, view: str, text: str) -> Row:
    """A row of `descriptions`, of a captioner that is people."""
    row = {"item_id": name, "view": view, "text": text, "language": "en", "captioner": "people", "revision": ""}
    row |= {"prompt_id": "", "decoding": "{}", "finish_reason": "stop", "prompt_tokens": None}
    return row | {"completion_tokens": None, "flags": [], "frame_times_s": [], "sha256": ""}


def write_table(corpus: Path, table: str, rows: Mapping[str, Sequence[Row]]) -> None:
    """Write a table in shards of the same items, its manifest last."""
    (corpus / table).mkdir(parents=True, exist_ok=True)
    ids = [row["item_id"] for row in rows["items"]]
    parts = [ids[start : start + SHARD_ROWS] for start in range(0, len(ids), SHARD_ROWS)]
    by_item: dict[str, list[Row]] = {}
    for row in rows[table]:
        by_item.setdefault(row["item_id"], []).append(row)
    entries = [
        write_shard(
            corpus / table / shard_name(index, len(parts)),
            pa.Table.from_pylist([row for name in part for row in by_item.get(name, [])], SCHEMAS[table]),
        )
        | {"parent": "", "items": len(part)}
        for index, part in enumerate(parts)
    ]
    settings: Row = Ingest((rows["items"][0]["source"],), shard_size=SHARD_ROWS).settings()
    if table == "descriptions":
        settings = {name: rows[table][0][name] for name in ("captioner", "revision")} | {"views": {}}
    elif table == "translations":
        settings["translators"] = {}
    parents = {"items": corpus / "items"} if table == "descriptions" else {}
    write_manifest(
        corpus, table, settings=settings, fingerprint=fingerprint(settings), tools={}, parents=parents, shards=entries,
        failures=[],
    )  # fmt: skip

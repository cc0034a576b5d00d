"""How fast do samples come from disk? This loader beside `webdataset` and `datasets`, on the same pictures in one run.

python bench/loading.py                    2,000 pictures of 256 pixels, 0 and 2 workers
python bench/loading.py --items 500 --rounds 2

All three decode with Pillow, and resize, tokenise and collate with the same processor; the contenders take turns.
"""

import argparse
import io
import json
import statistics
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import datasets
import numpy as np
import pyarrow as pa
import torch
import webdataset
from PIL import Image
from torch.utils.data import DataLoader

from bench.common import machine, spread
from model.processing import LeccrProcessor
from model.tokenizer import train_tokenizer
from pipeline.corpus.schema import SCHEMAS
from pipeline.corpus.table import shard_name, write_manifest, write_shard
from pipeline.hashing import short_hash
from stages.data.batches import StepBatches, TrainingData

SIDE, WANTED = 256, 224  # pixels of the pictures, and of what the model sees
SHARDS, BATCH = 4, 64
LANGUAGES = ("de", "fr")
WORDS = (
    "a",
    "dog",
    "cat",
    "man",
    "woman",
    "red",
    "small",
    "street",
    "walks",
    "sits",
    "under",
    "house",
    "tree",
    "two",
    "old",
)


def sentence(generator: np.random.Generator, words: int) -> str:
    return " ".join(generator.choice(WORDS, words))


def picture(generator: np.random.Generator) -> bytes:
    """A JPEG as detailed as a photograph: about 20 kB."""
    coarse = Image.fromarray(generator.integers(0, 255, (12, 12, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC), np.int16)
    noise = generator.normal(0, 8, smooth.shape).astype(np.int16)
    stream = io.BytesIO()
    Image.fromarray(np.clip(smooth + noise, 0, 255).astype(np.uint8)).save(stream, "JPEG", quality=85)
    return stream.getvalue()


def row(number: int) -> dict[str, Any]:
    """An item with one English caption, so that there are as many samples as pictures."""
    generator = np.random.default_rng(number)
    captions = [{"caption_id": f"{number}#en", "language": "en", "origin": "human", "quality": 1.0}]
    captions += [
        {"caption_id": f"{number}#en>{language}", "language": language, "origin": "mt", "quality": 0.8}
        for language in LANGUAGES
    ]
    return {
        "item_id": f"{number:06d}.jpg",
        "split": "train",
        "media_type": "image",
        "media": picture(generator),
        "num_frames": 1,
        "uri": f"{number:06d}.jpg",
        "sha256": 4 * short_hash(str(number)),
        "source": "made up",
        "license": "",
        "captions": [{**caption, "text": sentence(generator, 10)} for caption in captions],
        "descriptions": [{"view": view, "text": sentence(generator, 40)} for view in ("short", "detail")],
    }


def write(folder: Path, items: int) -> tuple[Path, list[Path]]:
    """The same rows as a corpus and as tar files of as many shards."""
    home, tars, entries = folder / "corpus" / "training", [], []
    home.mkdir(parents=True)
    for index in range(SHARDS):
        rows = [row(number) for number in range(index, items, SHARDS)]
        path = home / shard_name(index, SHARDS)
        entries.append(write_shard(path, pa.Table.from_pylist(rows, SCHEMAS["training"])))
        tars.append(folder / f"{index:03d}.tar")
        with tarfile.open(tars[-1], "w") as tar:
            for one in rows:
                key = one["item_id"].removesuffix(".jpg")
                texts = {"captions": one["captions"], "descriptions": one["descriptions"]}
                for name, data in ((f"{key}.jpg", one["media"]), (f"{key}.json", json.dumps(texts).encode())):
                    member = tarfile.TarInfo(name)
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
    write_manifest(
        home.parent, "training", settings={}, fingerprint="", tools={}, parents={}, shards=entries,
        failures=[],
    )  # fmt: skip
    return home.parent, tars


class Collate:
    """What a user of another loader writes: texts by language at random, then the processor."""

    def __init__(self, processor: LeccrProcessor):
        self.processor = processor

    def __call__(self, rows: list[tuple[Image.Image, list[dict[str, Any]], list[dict[str, str]]]]) -> Any:
        target = [captions[1 + int(torch.randint(len(LANGUAGES), ()))] for _, captions, _ in rows]
        return (
            self.processor.media([[image] for image, _, _ in rows]),
            self.processor.texts([captions[0]["text"] for _, captions, _ in rows]),
            self.processor.texts([caption["text"] for caption in target]),
            self.processor.descriptions([[view["text"] for view in views] for _, _, views in rows]),
            torch.tensor([caption["quality"] for caption in target]),
        )

    def of_datasets(self, rows: list[dict[str, Any]]) -> Any:
        return self([(Image.open(io.BytesIO(one["media"])), one["captions"], one["descriptions"]) for one in rows])

    def of_webdataset(self, rows: list[tuple[Image.Image, dict[str, Any]]]) -> Any:
        return self([(image, texts["captions"], texts["descriptions"]) for image, texts in rows])


def contenders(corpus: Path, tars: list[Path], cache: Path, workers: int) -> dict[str, Callable[[], Iterable[Any]]]:
    """By name, what starts an epoch in random order; opening is not counted."""
    data = TrainingData([corpus])
    tokenizer = train_tokenizer(data.texts(), 1_000)
    processor = LeccrProcessor.create("tiny", "tiny", tokenizer, image_size=WANTED)
    collate = Collate(processor)
    batches = StepBatches(data, processor, BATCH)
    steps = range(batches.steps_per_epoch)
    arrow = datasets.load_dataset(
        "arrow", data_files=str(corpus / "training" / "*.arrow"), split="train", cache_dir=str(cache)
    )
    several = {"num_workers": workers, "prefetch_factor": 2 if workers else None}
    web = webdataset.WebDataset([str(path) for path in tars], shardshuffle=SHARDS, empty_check=False).shuffle(500)
    web = web.decode("pil").to_tuple("jpg", "json").batched(BATCH, collation_fn=collate.of_webdataset, partial=False)
    return {
        "leccr": lambda: DataLoader(batches, batch_size=None, sampler=steps, **several),
        "webdataset": lambda: webdataset.WebLoader(web, batch_size=None, **several),
        "datasets": lambda: DataLoader(
            arrow, batch_size=BATCH, shuffle=True, drop_last=True, collate_fn=collate.of_datasets, **several
        ),
    }


def rate(loader: Iterable[Any]) -> float:
    """Samples a second of an epoch, from its first batch on: workers take a while to start."""
    began, counted = time.monotonic(), 0
    for number, batch in enumerate(loader):
        if number:
            counted += len(batch[0].frames)
        else:
            began = time.monotonic()
    return counted / (time.monotonic() - began)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--items", type=int, default=2_000, help="pictures (2000)")
    arguments.add_argument("--rounds", type=int, default=5, help="epochs of each contender (5)")
    options = arguments.parse_args()
    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    print(machine())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        corpus, tars = write(folder, options.items)
        size = sum(path.stat().st_size for path in tars) / options.items
        print(f"{options.items:,} pictures of {SIDE} pixels ({size / 1e3:.0f} kB with texts), batches of {BATCH}")
        for workers in (0, 2):
            compare(contenders(corpus, tars, folder / f"cache-{workers}", workers), workers, options.rounds)


def compare(starts: dict[str, Callable[[], Iterable[Any]]], workers: int, rounds: int) -> None:
    rates: dict[str, list[float]] = {name: [] for name in starts}
    for number in range(rounds + 1):
        for name, start in starts.items():
            found = rate(start())
            if number:  # the first round fills the page cache
                rates[name].append(found)
    print(f"\n{workers} workers" + f"{'samples/s':>28}")
    for name, values in rates.items():
        print(f"  {name:<12}{spread(values, 0):>30}")
    ours = rates.pop("leccr")
    for name, values in rates.items():
        print(f"leccr / {name}: {spread(ratios(ours, values))}")
    best = max(rates.values(), key=statistics.median)
    print(f"leccr / the better of both: {statistics.median(ratios(ours, best)):.2f} (wanted: >= 1.0)", flush=True)


def ratios(ours: list[float], theirs: list[float]) -> list[float]:
    """Round by round: a neighbour's load weighs on both."""
    return [one / other for one, other in zip(ours, theirs, strict=True)]


if __name__ == "__main__":
    main()

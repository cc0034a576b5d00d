"""Are copies of photos found, and only copies? Planted ones, and the pairs among different photos.

python bench/duplicates.py --data FOLDER            FOLDER/images are the photos, such as Flickr8k's
python bench/duplicates.py --data FOLDER --every 8  copies of each eighth photo

Photos and copies are stored as `--stage pack` does it. Status 1 where a bound is missed.
"""

import argparse
import io
import itertools
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.common import machine
from pipeline.media.images import encode_jpeg, fitting
from pipeline.packing.near_duplicates import NearDuplicates, thumbnail
from pipeline.packing.rows import pixel_budget

SIZE = 384  # --image-size
MIN_FOUND, MAX_WRONG = 0.98, 10  # of each kind, less the last, which is all at once; pairs among different photos
MOST = 0.1  # cropped on each side
SCALES = (10_000, 30_000, 100_000)
HELD_OUT = 1_000


def resized(photo: Image.Image, random: random.Random) -> Image.Image:
    return photo.resize((photo.width // 4, photo.height // 4), Image.Resampling.BICUBIC)


def recompressed(photo: Image.Image, random: random.Random) -> Image.Image:
    return Image.open(io.BytesIO(encode_jpeg(photo, 30)))


def mirrored(photo: Image.Image, random: random.Random) -> Image.Image:
    return photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def less(photo: Image.Image, shares: Sequence[float]) -> Image.Image:
    """The photo without a share on its left, top, right and bottom."""
    width, height = photo.size
    left, top, right, bottom = shares
    return photo.crop(
        (round(width * left), round(height * top), round(width * (1 - right)), round(height * (1 - bottom)))
    )


def cropped(photo: Image.Image, random: random.Random) -> Image.Image:
    return less(photo, [random.uniform(0, MOST) for _ in range(4)])


def everything(photo: Image.Image, random: random.Random) -> Image.Image:
    return recompressed(resized(mirrored(cropped(photo, random), random), random), random)


KINDS: Mapping[str, Callable[[Image.Image, random.Random], Image.Image]] = {
    "resized to a quarter": resized,
    "JPEG quality 30": recompressed,
    "mirrored": mirrored,
    "cropped by 0 to 10 % on each side": cropped,
    "cropped by 10 % on every side": lambda photo, random: less(photo, [MOST] * 4),
    "cropped by 10 % on one or two sides": lambda photo, random: less(
        photo, random.choice([*itertools.product((0, MOST), repeat=4)][1:11])
    ),
    "cropped, mirrored, a quarter, quality 30": everything,
}


def stored(photo: Image.Image) -> np.ndarray:
    """The thumbnail of a photo, as packed."""
    size = fitting(photo.size, pixel_budget(*photo.size, SIZE))
    packed = encode_jpeg(photo.convert("RGB").resize(size, Image.Resampling.BICUBIC))
    return thumbnail({"media": packed, "num_frames": 1})


def planted(thumbnails: np.ndarray, copies: np.ndarray) -> tuple[int, int]:
    """How many copies are found with their photos, and how many other pairs, between photos and copies."""
    finder = NearDuplicates(np.concatenate([thumbnails, copies]))
    first, second = np.arange(len(thumbnails)), np.arange(len(thumbnails), len(thumbnails) + len(copies))
    pairs = finder.pairs(first, second) | finder.pairs(second, first)
    right = sum(other - one == len(thumbnails) for one, other in pairs)
    return right, len(pairs) - right


def blends(thumbnails: np.ndarray, count: int) -> np.ndarray:
    """Pictures like photos: means of two that are drawn."""
    draw = np.random.default_rng(0)
    one, other = (thumbnails[draw.integers(len(thumbnails), size=count)].astype(np.uint16) for _ in range(2))
    return ((one + other) // 2).astype(np.uint8)


def costs(thumbnails: np.ndarray) -> Iterator[str]:
    """Rows of CPU seconds, of held-out pictures against all and of all against all."""
    for count in SCALES:
        pictures = blends(thumbnails, count)
        seconds = [time.process_time()]
        finder = NearDuplicates(pictures)
        everyone, held_out = np.arange(count), np.arange(HELD_OUT)
        for comparisons in (((held_out, everyone), (everyone, held_out)), ((everyone, everyone),)):
            for queries, among in comparisons:
                finder.pairs(queries, among)
            seconds.append(time.process_time())
        yield f"| {count:,} | {seconds[1] - seconds[0]:.0f} | {seconds[2] - seconds[1]:.0f} |"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder whose images/ are photos")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="plant copies of each N-th photo (1)")
    options = parser.parse_args(argv)
    print(machine(), flush=True)
    paths = sorted((options.data / "images").iterdir())
    began = time.process_time()
    thumbnails = np.array([stored(Image.open(path).convert("RGB")) for path in paths])
    print(f"{len(paths):,} photos; {(time.process_time() - began) / len(paths) * 1000:.1f} ms each to store and shrink")
    print("\n| copies | planted | found | pairs of different photos |\n| --- | ---: | ---: | ---: |", flush=True)
    good = True
    chosen = range(0, len(paths), options.every)
    for kind, change in KINDS.items():
        draw = random.Random(kind)
        copies = np.array([stored(change(Image.open(paths[number]).convert("RGB"), draw)) for number in chosen])
        right, wrong = planted(thumbnails[chosen], copies)
        good &= change is everything or right >= MIN_FOUND * len(copies)
        print(f"| {kind} | {len(copies):,} | {right / len(copies):.2%} | {wrong} |", flush=True)
    began = time.process_time()
    everyone = np.arange(len(paths))
    pairs = NearDuplicates(thumbnails).pairs(everyone, everyone)
    seconds = time.process_time() - began
    print(f"\n{len(pairs)} pairs among {len(paths):,} different photos, in {seconds:.1f} s:")
    for pair in sorted(pairs):
        print("  " + " and ".join(paths[number].name for number in pair))
    print(f"\n| pictures | {HELD_OUT:,} of them and all, CPU s | all and all |\n| ---: | ---: | ---: |", flush=True)
    for row in costs(thumbnails):
        print(row, flush=True)
    return 0 if good and len(pairs) <= MAX_WRONG else 1


if __name__ == "__main__":
    sys.exit(main())

"""Are copies of photos found, and only copies? Planted ones, and the pairs among different photos.

python bench/duplicates.py --data FOLDER            FOLDER/images are the photos, such as Flickr8k's
python bench/duplicates.py --data FOLDER --every 8  copies of each eighth photo
python bench/duplicates.py --data FOLDER --libraries  perceptual hashes of libraries, instead

Photos and copies are stored as `--stage pack` does it. Status 1 where a bound is missed. `--libraries` needs imagehash
and pdqhash.
"""

import argparse
import io
import itertools
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

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


def packed(photo: Image.Image) -> bytes:
    """The photo as `--stage pack` stores it."""
    size = fitting(photo.size, pixel_budget(*photo.size, SIZE))
    return encode_jpeg(photo.convert("RGB").resize(size, Image.Resampling.BICUBIC))


def stored(photo: Image.Image) -> np.ndarray:
    """The thumbnail of a photo, as packed."""
    return thumbnail({"media": packed(photo), "num_frames": 1})


def copied(paths: Sequence[Path], kind: str) -> Iterator[Image.Image]:
    """A copy of each photo."""
    draw = random.Random(kind)
    return (KINDS[kind](Image.open(path).convert("RGB"), draw) for path in paths)


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


def libraries(paths: Sequence[Path], every: int) -> Iterator[str]:
    """Rows of what hashes of libraries find at the largest distance that pairs at most MAX_WRONG of the photos.

    Each photo is hashed mirrored as well, and the smaller of the two distances counts.
    """
    import imagehash
    import pdqhash

    functions: Mapping[str, Callable[[Image.Image], np.ndarray]] = {
        "imagehash.phash": lambda image: imagehash.phash(image).hash,
        "imagehash.phash, 256 bits": lambda image: imagehash.phash(image, hash_size=16).hash,
        "imagehash.dhash": lambda image: imagehash.dhash(image).hash,
        "pdqhash": lambda image: pdqhash.compute(np.asarray(image))[0] > 0,
    }
    photos = [packed(Image.open(path)) for path in paths]
    copies = {kind: [packed(copy) for copy in copied(paths[::every], kind)] for kind in KINDS}
    yield f"| hash | ms | distance | pairs of {len(photos):,} photos | {' | '.join(KINDS)} |"
    yield "| --- |" + " ---: |" * (3 + len(KINDS))
    for name, function in functions.items():

        def hashes(pictures: Sequence[bytes], mirror: bool = False, function: Any = function) -> np.ndarray:
            images = (Image.open(io.BytesIO(picture)) for picture in pictures)
            bits = [np.packbits(function(ImageOps.mirror(image) if mirror else image)) for image in images]
            return np.array(bits).view(np.uint64)

        def distances(both: Sequence[np.ndarray], others: np.ndarray) -> np.ndarray:
            return np.min([np.bitwise_count(one ^ others).sum(-1, dtype=int) for one in both], axis=0)

        began = time.process_time()
        both = [hashes(photos), hashes(photos, mirror=True)]
        milliseconds = (time.process_time() - began) / len(photos) * 500
        pairs = np.zeros(257, int)
        for number in range(len(photos)):
            pairs += np.bincount(distances([own[number] for own in both], both[0][number + 1 :]), minlength=257)
        pairs = pairs.cumsum()
        bound = np.flatnonzero(pairs <= MAX_WRONG).max(initial=0)
        found = [(distances([own[::every] for own in both], hashes(copies[kind])) <= bound).mean() for kind in KINDS]
        figures = " | ".join(f"{share:.1%}" for share in found)
        yield f"| {name} | {milliseconds:.1f} | {bound} | {pairs[bound]} | {figures} |"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder whose images/ are photos")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="plant copies of each N-th photo (1)")
    parser.add_argument("--libraries", action="store_true", help="measure perceptual hashes of libraries instead")
    options = parser.parse_args(argv)
    print(machine(), flush=True)
    paths = sorted((options.data / "images").iterdir())
    if options.libraries:
        for row in libraries(paths, options.every):
            print(row, flush=True)
        return 0
    began = time.process_time()
    thumbnails = np.array([stored(Image.open(path).convert("RGB")) for path in paths])
    print(f"{len(paths):,} photos; {(time.process_time() - began) / len(paths) * 1000:.1f} ms each to store and shrink")
    print("\n| copies | planted | found | pairs of different photos |\n| --- | ---: | ---: | ---: |", flush=True)
    good = True
    chosen = range(0, len(paths), options.every)
    for kind, change in KINDS.items():
        copies = np.array([stored(copy) for copy in copied([paths[number] for number in chosen], kind)])
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

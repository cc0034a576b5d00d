"""Synthetic scenes as a source: a whole corpus to train and score on, or a folder of pictures for the other stages.

    python -m pipeline.sources.scenes --output CORPUS --items 3000 --videos 0.1
    python -m pipeline.sources.scenes --folder FOLDER

A corpus has every table that the stages would make, and is read and verified like any other. 3,600 items of 64 pixels
take seconds. The same settings give the same bytes.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pipeline.corpus import table as corpora
from pipeline.errors import PipelineError, UsageError
from pipeline.hashing import canonical_json
from pipeline.sources.scenes import rows, writing
from pipeline.sources.scenes.languages import SOURCE, caption, check_languages
from pipeline.sources.scenes.rows import Settings

SIZES = (16, 1024)  # pixels, the smallest and the largest side of a picture


def write_corpus(
    folder: Path,
    *,
    items: int = 3000,
    val: int = 300,
    test: int = 300,
    size: int = 64,
    seed: int = 0,
    languages: Sequence[str] = ("de", "fr", "cs", "zh", "ja"),
    translation_noise: float = 0.2,
    description_errors: float = 0.1,
    videos: float = 0.0,
    say: Callable[[str], None] | None = None,
) -> None:
    """Write a whole corpus of scenes: media, items, captions, descriptions, translations, training, README.md.

    `items`, `val` and `test` are how many items each split has, `size` the pictures' side in pixels,
    `translation_noise` a level from 0 to 1, `description_errors` the probability that a fact is wrong, `videos` the
    share of clips. A corpus that is there with these settings is left as it is. Raises UsageError naming the setting
    that is out of range, or that differs from those of a corpus that is there.
    """
    settings = Settings(items, val, test, size, seed, tuple(languages), translation_noise, description_errors, videos)
    writing.write(Path(folder), checked(settings), say or _silent)


def write_folder(
    folder: Path,
    *,
    items: int = 300,
    size: int = 64,
    seed: int = 0,
    videos: float = 0.0,
    say: Callable[[str], None] | None = None,
) -> None:
    """Write pictures, and clips, for `--input FOLDER`: English captions in captions.jsonl, what is true of each in
    scenes.jsonl. They are those of the training items of a corpus of this seed without anything held out."""
    settings = checked(Settings(items, 0, 0, size, seed, videos=videos))
    captions = folder / "captions.jsonl"
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"--folder: {folder} is there and holds something, wanted a new or empty folder")
    folder.mkdir(parents=True, exist_ok=True)
    planned = [(item, item.item_id.rpartition("/")[2]) for item in rows.plan(settings)]
    for item, name in planned:
        (folder / name).write_bytes(rows.medium(item, settings)[0])
    with corpora.atomic_writer(folder / "scenes.jsonl") as stream:
        for item, name in planned:
            stream.write(f"{canonical_json({'file': name, **item.scene.truth()})}\n".encode())
    with corpora.atomic_writer(captions) as stream:
        for item, name in planned:
            texts = [caption(message, SOURCE) for message in rows.said_of(item, seed)]
            stream.write(f"{json.dumps({'file': name, 'captions': texts}, ensure_ascii=False)}\n".encode())
    (say or _silent)(f"{folder}: {len(planned):,} media with captions.jsonl and scenes.jsonl")


def checked(settings: Settings) -> Settings:
    """The settings, languages in one order. Raises UsageError for one that is out of its range."""
    for name in ("items", "val", "test"):
        if getattr(settings, name) < 0:
            raise UsageError(f"--{name}: got {getattr(settings, name)}, wanted 0 or more")
    if not settings.items + settings.val + settings.test:
        raise UsageError("--items, --val, --test: got 0 of each, wanted at least one item")
    if not SIZES[0] <= settings.size <= SIZES[1]:
        raise UsageError(f"--size: got {settings.size} pixels, wanted {SIZES[0]} to {SIZES[1]:,}")
    shares = ("translation_noise", "description_errors", "videos")
    for name in shares:
        if not 0 <= getattr(settings, name) <= 1:
            raise UsageError(f"--{name.replace('_', '-')}: got {getattr(settings, name)}, wanted 0 to 1")
    plain: dict[str, Any] = {name: float(getattr(settings, name)) for name in shares}  # 0 and 0.0 are one
    return dataclasses.replace(settings, languages=check_languages(settings.languages), **plain)


def parser() -> argparse.ArgumentParser:
    default = Settings()
    made = argparse.ArgumentParser(prog="python -m pipeline.sources.scenes", description=__doc__.split("\n")[0])
    made.add_argument("--output", type=Path, help="write a corpus into this folder")
    made.add_argument("--folder", type=Path, help="write the pictures and captions.jsonl into this folder")
    made.add_argument("--items", type=int, default=default.items, help="items to train on (default: %(default)s)")
    made.add_argument("--val", type=int, default=default.val, help="items of split val (default: %(default)s)")
    made.add_argument("--test", type=int, default=default.test, help="items of split test (default: %(default)s)")
    made.add_argument("--size", type=int, default=default.size, help="side of a picture, pixels (default: %(default)s)")
    made.add_argument("--seed", type=int, default=default.seed, help="of all that is drawn (default: %(default)s)")
    made.add_argument("--languages", default=",".join(default.languages), help="tags (default: %(default)s)")
    shares = {
        "translation-noise": "level of noise in translations, 0 to 1",
        "description-errors": "probability that a fact is wrong, 0 to 1",
        "videos": "share of clips, 0 to 1",
    }
    for name, told in shares.items():
        value = getattr(default, name.replace("-", "_"))
        made.add_argument(f"--{name}", type=float, default=value, help=f"{told} (default: %(default)s)")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    given = vars(options)
    given["languages"] = tuple(filter(None, (tag.strip() for tag in options.languages.split(","))))
    folder, output = given.pop("folder"), given.pop("output")
    try:
        if folder is None and output is None:
            raise UsageError("got neither --output nor --folder, wanted one of them: where to write")
        if output is not None:
            write_corpus(output, **given, say=print)
        if folder is not None:
            write_folder(folder, **{name: given[name] for name in ("items", "size", "seed", "videos")}, say=print)
    except PipelineError as error:
        print(error, file=sys.stderr)
        return error.status
    return 0


def _silent(_line: str) -> None:
    pass


if __name__ == "__main__":
    sys.exit(main())

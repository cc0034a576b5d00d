"""Sources: what `--input` may name, and the items in it.

A source (`items.Source`) lists items: an id, where the media are, captions, split and licence. `--source` names its
kind; `auto` decides in this order:

    nothing                                                samples      photos carried by installed packages
    pattern of .tar files, a .tar file                     webdataset   tar.py
    a .parquet or .arrow file, a `save_to_disk` folder     dataset      hf.py
    a .txt file                                            paths        media_files.py
    a folder with images or videos                         folder       media_files.py
    a folder with only .tar, .parquet or .arrow files      webdataset or dataset

Benchmarks are never guessed. Fields of rows with captions are read in rows.py, whatever file they come from, and rows
are matched to media in sidecars.py.
"""

import posixpath
from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.sources.account import Account
from pipeline.sources.benchmarks import BENCHMARKS, open_benchmark
from pipeline.sources.benchmarks.importer import Options
from pipeline.sources.hf import DatasetSource, saved_files, shard_files
from pipeline.sources.items import Defaults, Source, SourceCaption, SourceItem, all_items, split_of_folder
from pipeline.sources.listing import list_folder
from pipeline.sources.locations import SHARD_SUFFIXES, absolute, exists, is_folder, is_url, open_binary, short_name
from pipeline.sources.media_files import FolderSource, PathsSource
from pipeline.sources.samples import SamplesSource
from pipeline.sources.tar import TarSource, tars_of_pattern

__all__ = ["KINDS", "Source", "SourceCaption", "SourceItem", "all_items", "open_source"]

KINDS = ("auto", "folder", "webdataset", "dataset", "paths", "samples", *BENCHMARKS)
COMPRESSED_TARS = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
MARKERS = {"dataset_dict.json", "state.json"}  # one of them is in a `save_to_disk` folder
SHARDS = {"auto": SHARD_SUFFIXES, "webdataset": (".tar",), "dataset": (".parquet", ".arrow")}


def open_source(
    input: str | None,
    kind: str = "auto",
    *,
    split: str = "",
    caption_language: str = "en",
    license: str = "",
    subset: bool = False,
    allow_missing_media: bool = False,
) -> Source:
    """Open an input and look through its files.

    Args:
        input: A path, a URL or a pattern of tar files; None for the sample photos.
        kind: One of KINDS.
        split: Split of items whose source names none; "" for the one that the input's name stands for, else train.
        caption_language: BCP 47 tag of captions whose source names none.
        license: Licence of items whose source names none.
        subset: Take a benchmark whose counts are not the published ones.
        allow_missing_media: Keep a benchmark's items without media.

    Raises:
        UsageError: The input cannot be of this kind, or cannot be read.
    """
    split = split or (_split_of_input(input) if input else "") or "train"
    defaults = Defaults(split, caption_language, license)
    if kind not in BENCHMARKS and (subset or allow_missing_media):
        raise UsageError(f"--subset and --allow-missing-media are only for benchmarks ({', '.join(BENCHMARKS)})")
    if input is None:
        if kind not in ("auto", "samples"):
            raise UsageError(f"--source {kind}: give the path as --input")
        return SamplesSource(defaults)
    if kind in BENCHMARKS:
        return open_benchmark(kind, input, Options(defaults, subset, allow_missing_media))
    if kind == "samples":
        raise UsageError(f"--source samples takes no --input, but {input} was given: leave one of the two out")
    if exists(input):
        return _open_folder(input, kind, defaults) if is_folder(input) else _open_file(input, kind, defaults)
    if kind in ("auto", "webdataset") and ".tar" in input.lower() and any(sign in input for sign in "{*?["):
        return TarSource(input, tars_of_pattern(input), defaults)
    if is_url(input):
        open_binary(input).close()  # for the server's reason
    raise UsageError(f"--input: {input} does not exist: check the spelling (only webdataset takes patterns)")


def _split_of_input(input: str) -> str:
    """The split that an input is named after. A folder `test` may be a trial: it needs a neighbour of another split."""
    name = short_name(input)
    split = split_of_folder(name)
    if name.lower() in ("test", "testing", "dev"):
        neighbours = [] if is_url(input) else Path(absolute(input)).parent.glob("*/")
        return split if any(split_of_folder(path.name) not in ("", split) for path in neighbours) else ""
    return split


def _open_file(input: str, kind: str, defaults: Defaults) -> Source:
    root, _, name = absolute(input).rpartition("/")
    if name.lower().endswith(COMPRESSED_TARS):
        raise UsageError(f"--input: {input} is compressed: decompress it to a .tar first")
    if name.lower().endswith(SHARDS.get(kind, ())):
        return _open_shards(input, root, [name], defaults)
    if kind == "paths" or (kind == "auto" and name.lower().endswith(".txt")):
        return PathsSource(input, defaults)
    raise UsageError(
        f"--input: {input} is not a file that --source {kind} reads: give a .tar, .parquet or .arrow file, a .txt file "
        "of paths, or the folder of your images and videos"
    )


def _open_folder(input: str, kind: str, defaults: Defaults) -> Source:
    if kind == "paths":
        raise UsageError(f"--source paths: {input} is a folder: give a text file of paths")
    listing = list_folder(input)
    if kind in ("auto", "dataset") and any(mark in listing.paths for mark in MARKERS):
        states = [path for path in listing.with_suffixes((".json",)) if posixpath.basename(path) == "state.json"]
        return DatasetSource(input, saved_files(listing.root, states, defaults.split), defaults, listing.account)
    if kind == "folder" or (kind == "auto" and listing.media):
        return FolderSource(input, listing, defaults)
    paths = listing.with_suffixes(SHARDS[kind])
    if not paths:
        expected = f"{'images, videos, ' if kind == 'auto' else ''}{' or '.join(SHARDS[kind])}"
        raise UsageError(f"--input: {input} holds {listing.describe()}, but no {expected} files: give another")
    if len({path.lower().rpartition(".")[2] for path in paths}) > 1:
        raise UsageError(f"--input: {input} holds {listing.describe()}, which may be the same items: give one of them")
    listing.account_for_others(paths.suffixes)
    return _open_shards(input, listing.root, list(paths), defaults, listing.account)


def _open_shards(
    input: str, root: str, paths: Sequence[str], defaults: Defaults, account: Account | None = None
) -> Source:
    if paths[0].lower().endswith(".tar"):
        return TarSource(input, [f"{root}/{path}" for path in paths], defaults, account)
    return DatasetSource(input, shard_files(root, paths, defaults.split), defaults, account)

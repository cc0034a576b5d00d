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
are matched to media in matching.py.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TypedDict, Unpack

from pipeline.errors import UsageError
from pipeline.sources.benchmarks import BENCHMARKS, open_benchmark
from pipeline.sources.benchmarks.importer import Options
from pipeline.sources.hf import MARKERS, DatasetSource, dataset_files, shard_files
from pipeline.sources.items import Defaults, Source, SourceCaption, SourceItem
from pipeline.sources.locations import MEDIA_SUFFIXES, Listing, absolute, exists, is_folder, list_folder
from pipeline.sources.media_files import FolderSource, PathsSource
from pipeline.sources.samples import SamplesSource
from pipeline.sources.tar import TarSource, tars_of_pattern

__all__ = ["KINDS", "Source", "SourceCaption", "SourceItem", "all_items", "open_source", "open_sources"]

KINDS = ("auto", "folder", "webdataset", "dataset", "paths", "samples", *BENCHMARKS)
COMPRESSED_TARS = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
SHARDS = {"webdataset": (".tar",), "dataset": (".parquet", ".arrow")}


class SourceSettings(TypedDict, total=False):
    """Settings of `open_source`."""

    split: str
    caption_language: str
    license: str
    subset: bool
    allow_missing_media: bool


def open_sources(inputs: Sequence[str], kind: str = "auto", **settings: Unpack[SourceSettings]) -> list[Source]:
    """Open every input with the same settings (see open_source); no input means the sample photos."""
    return [open_source(input, kind, **settings) for input in list[str | None](inputs) or [None]]


def open_source(
    input: str | None,
    kind: str = "auto",
    *,
    split: str = "train",
    caption_language: str = "en",
    license: str = "",
    subset: bool = False,
    allow_missing_media: bool = False,
) -> Source:
    """Open an input and look through its files.

    Args:
        input: A path, a URL or a pattern of tar files; None for the sample photos.
        kind: One of KINDS.
        split: Split of items whose source names none.
        caption_language: BCP 47 tag of captions whose source names none.
        license: Licence of items whose source names none.
        subset: Take a benchmark whose counts are not the published ones.
        allow_missing_media: Keep a benchmark's items without media.

    Raises:
        UsageError: The input cannot be of this kind, or cannot be read.
    """
    defaults = Defaults(split, caption_language, license)
    if kind not in KINDS:
        raise UsageError(f"--source: {kind!r} is not one of {', '.join(KINDS)}")
    if kind in BENCHMARKS and input is not None:
        return open_benchmark(kind, input, Options(defaults, subset, allow_missing_media))
    if kind not in BENCHMARKS and (subset or allow_missing_media):
        option = "--subset" if subset else "--allow-missing-media"
        raise UsageError(f"{option} is for benchmarks ({', '.join(BENCHMARKS)}), not --source {kind}: leave it out")
    if input is None:
        if kind not in ("auto", "samples"):
            raise UsageError(f"--source {kind}: give the path as --input")
        return SamplesSource(defaults)
    if kind == "samples":
        raise UsageError(f"--source samples takes no --input, but {input} was given: leave one of the two out")
    if not exists(input) and any(sign in input for sign in "{*?[") and ".tar" in input.lower():
        if kind not in ("auto", "webdataset"):
            raise UsageError(f"--source {kind}: {input} is a pattern, which only webdataset takes: give a path")
        return TarSource(input, tars_of_pattern(input), defaults)
    if not exists(input):
        raise UsageError(f"--input: {input} does not exist: check the spelling")
    return _open_folder(input, kind, defaults) if is_folder(input) else _open_file(input, kind, defaults)


def _open_file(input: str, kind: str, defaults: Defaults) -> Source:
    lower = input.lower()
    if lower.endswith(COMPRESSED_TARS) or (kind in ("auto", "webdataset") and lower.endswith(".tar")):
        return TarSource(input, [absolute(input)], defaults)
    if kind in ("auto", "dataset") and lower.endswith(SHARDS["dataset"]):
        root, _, name = absolute(input).rpartition("/")
        return DatasetSource(input, shard_files(root, [name], defaults.split), defaults)
    if kind == "paths" or (kind == "auto" and lower.endswith(".txt")):
        return PathsSource(input, defaults)
    if lower.endswith(tuple(MEDIA_SUFFIXES)):
        raise UsageError(f"--input: {input} is a single picture or video: give its folder, or a .txt file of paths")
    readable = "a folder, .txt, .tar, .parquet or .arrow" if kind == "auto" else f"a file that --source {kind} reads"
    raise UsageError(f"--input: {input} is not {readable}: see --help, --source")


def _open_folder(input: str, kind: str, defaults: Defaults) -> Source:
    if kind == "paths":
        raise UsageError(f"--source paths: {input} is a folder: give a text file of paths")
    root = absolute(input)
    if kind in ("auto", "dataset") and any(exists(f"{root}/{name}") for name in MARKERS):
        files = dataset_files(input, defaults.split)
        if files:
            return DatasetSource(input, files, defaults)
    listing = list_folder(input)
    if kind == "folder" or (kind == "auto" and listing.media):
        return FolderSource(input, listing, defaults)
    return _open_shards(input, kind, listing, defaults)


def _open_shards(input: str, kind: str, listing: Listing, defaults: Defaults) -> Source:
    suffixes = SHARDS.get(kind, tuple(listing.shards))
    present = [suffix for suffix in suffixes if listing.shards[suffix]]
    if not present:
        expected = "images, videos, " if kind == "auto" else ""
        raise UsageError(
            f"--input: {input} holds {listing.describe()}, but no {expected}{' or '.join(suffixes)} files: give another"
        )
    if len(present) > 1:
        raise UsageError(f"--input: {input} holds {listing.describe()}, which may be the same items: give one of them")
    paths = listing.shards[present[0]]
    if present == [".tar"]:
        return TarSource(input, [f"{listing.root}/{path}" for path in paths], defaults)
    return DatasetSource(input, shard_files(listing.root, paths, defaults.split), defaults)


def all_items(sources: Sequence[Source]) -> Iterator[SourceItem]:
    """List the items of all sources. With several sources their ids begin with the input's name.

    Memory: 8 bytes and a set's slot per item; none for folders, whose paths differ.

    Raises:
        UsageError: An id comes twice in one source. The message names both places.
    """
    for source, prefix in zip(sources, _prefixes(sources), strict=True):
        digests: set[int] = set()
        for item in source.items():
            if source.kind != "folder":
                digest = hash(item.item_id)
                if digest in digests:
                    _refuse_duplicate(source, item.item_id)
                digests.add(digest)
            yield replace(item, item_id=prefix + item.item_id) if prefix else item


def _prefixes(sources: Sequence[Source]) -> list[str]:
    """Nothing for a single source, else each one's name and `/`; a name that is taken gets the next free number."""
    if len(sources) == 1:
        return [""]
    names: list[str] = []
    for source in sources:
        name, number = source.name, 1
        while name in names:
            number += 1
            name = f"{source.name}-{number}"
        names.append(name)
    return [f"{name}/" for name in names]


def _refuse_duplicate(source: Source, item_id: str) -> None:
    places = [(at, item.uri) for at, item in enumerate(source.items(), start=1) if item.item_id == item_id]
    if len(places) > 1:  # else two ids share a hash
        (first, first_uri), (second, second_uri) = places[:2]
        raise UsageError(
            f"--input: {source.name}: the id {item_id!r} comes twice, as item {first:,} ({first_uri}) and item "
            f"{second:,} ({second_uri}): leave one out, or give them as two inputs"
        )

"""Sources: what `--input` may name, and the items in it. See KINDS; `auto` looks and says what it took it for."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from pipeline.errors import UsageError
from pipeline.sources.benchmarks import BENCHMARKS, open_benchmark
from pipeline.sources.benchmarks.checks import Options
from pipeline.sources.folder import FolderSource
from pipeline.sources.hf import MARKERS, DatasetSource, dataset_files, shard_files
from pipeline.sources.items import Defaults, Source, SourceCaption, SourceItem
from pipeline.sources.locations import (
    MEDIA_SUFFIXES,
    Listing,
    absolute,
    exists,
    is_folder,
    list_folder,
)
from pipeline.sources.paths import PathsSource
from pipeline.sources.samples import SamplesSource
from pipeline.sources.tar import TarSource, tars_of_pattern

__all__ = ["KINDS", "Source", "SourceCaption", "SourceItem", "all_items", "open_source", "open_sources"]

KINDS = ("auto", "folder", "webdataset", "dataset", "paths", "samples", *BENCHMARKS)
COMPRESSED_TARS = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")


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
    """Looks an input through, None being the sample photos. Raises UsageError where it cannot be one of KINDS.

    `split`, `caption_language` (BCP 47) and `license` are for the items whose source does not say; `subset` and
    `allow_missing_media` are for benchmarks, see `benchmarks.checks.Options`.
    """
    defaults = Defaults(split, caption_language, license)
    if kind not in KINDS:
        raise UsageError(f"--source: got {kind!r}, wanted one of {', '.join(KINDS)}")
    if kind not in BENCHMARKS and (subset or allow_missing_media):
        given = "--subset" if subset else "--allow-missing-media"
        raise UsageError(f"{given}: got --source {kind}, wanted a benchmark ({', '.join(BENCHMARKS)}): leave it out")
    if input is None:
        if kind not in ("auto", "samples"):
            raise UsageError(f"--source {kind}: got no --input, wanted its path")
        return SamplesSource(defaults)
    if kind in BENCHMARKS:
        return open_benchmark(kind, input, Options(defaults, subset, allow_missing_media))
    if kind == "samples":
        raise UsageError(f"--source samples: got --input {input}, wanted none: leave one of the two out")
    lower = input.lower()
    if not exists(input) and any(sign in input for sign in "{*?[") and ".tar" in lower:
        if kind not in ("auto", "webdataset"):
            raise UsageError(f"--source {kind}: got the pattern {input}, wanted a path: patterns are for webdataset")
        return TarSource(input, tars_of_pattern(input), defaults)
    if not exists(input):
        raise UsageError(f"--input: {input} does not exist: wanted a folder or file, check the spelling")
    return _open_folder(input, kind, defaults) if is_folder(input) else _open_file(input, kind, defaults)


def open_sources(
    inputs: Sequence[str],
    kind: str = "auto",
    *,
    split: str = "train",
    caption_language: str = "en",
    license: str = "",
    subset: bool = False,
    allow_missing_media: bool = False,
) -> list[Source]:
    """Every input as a source; none at all means the sample photos."""
    return [
        open_source(
            input,
            kind,
            split=split,
            caption_language=caption_language,
            license=license,
            subset=subset,
            allow_missing_media=allow_missing_media,
        )
        for input in list[str | None](inputs) or [None]
    ]


def all_items(sources: Sequence[Source]) -> Iterator[SourceItem]:
    """The items of all sources, each id once. With several sources the ids begin with the input's name.

    Raises UsageError for an id that comes twice in one source, naming both places. Memory: 8 bytes and a set's slot an
    item; a folder needs none, as its paths differ.
    """
    for source, prefix in zip(sources, _prefixes(sources), strict=True):
        seen: set[int] = set()
        for item in source.items():
            if source.kind != "folder":
                digest = hash(item.item_id)
                if digest in seen:
                    _refuse_doubled(source, item.item_id)
                seen.add(digest)
            yield replace(item, item_id=prefix + item.item_id) if prefix else item


def _prefixes(sources: Sequence[Source]) -> list[str]:
    """ "" for a single source, else each one's name and `/`; a name already taken gets the next free number."""
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


def _refuse_doubled(source: Source, item_id: str) -> None:
    places = [(at, item.uri) for at, item in enumerate(source.items(), start=1) if item.item_id == item_id]
    if len(places) > 1:  # else two ids share a hash
        (first, first_uri), (second, second_uri) = places[:2]
        raise UsageError(
            f"--input: {source.name}: the id {item_id!r} comes twice, as item {first:,} ({first_uri}) and item "
            f"{second:,} ({second_uri}): leave one out, or give them as two inputs"
        )


def _open_file(input: str, kind: str, defaults: Defaults) -> Source:
    lower = input.lower()
    if lower.endswith(COMPRESSED_TARS) or (kind in ("auto", "webdataset") and lower.endswith(".tar")):
        return TarSource(input, [absolute(input)], defaults)
    if lower.endswith((".parquet", ".arrow")) and kind in ("auto", "dataset"):
        root, _, name = absolute(input).rpartition("/")
        return DatasetSource(input, shard_files(root, [name], defaults.split), defaults)
    if kind == "paths" or (kind == "auto" and lower.endswith(".txt")):
        return PathsSource(input, defaults)
    if lower.endswith(tuple(MEDIA_SUFFIXES)):
        raise UsageError(f"--input: {input} is one picture or video, wanted its folder, or a .txt file of paths")
    wanted = "a folder, .txt, .tar, .parquet or .arrow" if kind == "auto" else f"what --source {kind} reads"
    raise UsageError(f"--input: got the file {input}, wanted {wanted}: see --help, --source")


def _open_folder(input: str, kind: str, defaults: Defaults) -> Source:
    if kind == "paths":
        raise UsageError(f"--source paths: got the folder {input}, wanted a text file of paths")
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
    fitting = {"webdataset": (".tar",), "dataset": (".parquet", ".arrow")}.get(kind, tuple(listing.shards))
    present = [suffix for suffix in fitting if listing.shards[suffix]]
    if not present:
        wanted = "images, videos, " if kind == "auto" else ""
        raise UsageError(f"--input: {input} holds {listing.found()}, wanted {wanted}{', '.join(fitting)} files in it")
    if len(present) > 1:
        raise UsageError(f"--input: {input} holds {listing.found()}, which may be the same items: give one of them")
    paths = listing.shards[present[0]]
    if present == [".tar"]:
        return TarSource(input, [f"{listing.root}/{path}" for path in paths], defaults)
    return DatasetSource(input, shard_files(listing.root, paths, defaults.split), defaults)

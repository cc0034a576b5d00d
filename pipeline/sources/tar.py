"""Webdataset tar files: members grouped into samples by their name up to the first dot after the last `/`."""

import itertools
import json
import re
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from pipeline.errors import UsageError
from pipeline.media.images import reference
from pipeline.sources.items import (
    Defaults,
    SourceItem,
    captions_in,
    distinct,
    plain,
    split_named,
    split_of_shard,
)
from pipeline.sources.locations import MEDIA_SUFFIXES, absolute, exists, glob, open_binary, short_name

BRACE = re.compile(r"\{([^{}]*)\}")
COMPRESSED = {b"\x1f\x8b": "gunzip", b"BZh": "bunzip2", b"\xfd7zXZ": "unxz", b"\x28\xb5\x2f\xfd": "unzstd"}
CAPTION_SUFFIXES = ("txt", "caption")
MAX_TEXT_BYTES = 1 << 20  # of a caption or JSON member


@dataclass
class Sample:
    """The members of one key: media as (suffix, offset, size in bytes), captions and what JSON says."""

    key: str
    media: list[tuple[str, int, int, str]] = field(default_factory=list)  # suffix, offset, size, member
    texts: dict[str, str] = field(default_factory=dict)
    told: dict[str, Any] = field(default_factory=dict)
    suffixes: set[str] = field(default_factory=set)


class TarSource:
    """The samples of tar files, in the tars' order and each tar's own. Several tars: their paths begin the ids.

    Memory: the keys and captions of one tar. Compressed tars are refused: their members have no place in the file.
    """

    kind = "webdataset"

    def __init__(self, given: str, tars: Sequence[str], defaults: Defaults):
        """`tars` are absolute locations, sorted, at least one."""
        self.given, self.tars, self.defaults = given, tars, defaults
        self.name = short_name(given)
        self.counts: Counter[str] = Counter()
        self.finished = False
        folders = [tar.rpartition("/")[0].split("/") for tar in tars]
        shared = itertools.takewhile(lambda parts: len(set(parts)) == 1, zip(*folders, strict=False))
        self.shared = sum(len(parts[0]) + 1 for parts in shared)  # characters of the folder that holds them all
        for tar in tars:
            with open_binary(tar) as stream:
                _refuse_compressed(tar, stream)

    @property
    def summary(self) -> str:
        parts = [f"{len(self.tars):,} tar files"]
        if self.finished:
            parts += [f"{count:,} {what}" for what, count in self.counts.items()]
        return f"webdataset {self.given}: {', '.join(parts)}"

    def items(self) -> Iterator[SourceItem]:
        self.finished, self.counts = False, Counter(samples=0)
        for tar in self.tars:
            name = tar[self.shared :].removesuffix(".tar")
            split = split_of_shard(name, self.defaults.split)
            samples: dict[str, Sample] = {}
            with open_binary(tar) as stream:
                damage = _read(tar, stream, samples, self.counts)
            for sample in samples.values():
                if not sample.media:
                    self.counts["samples without media, not used"] += 1
                    continue
                self.counts["samples"] += 1
                if len(sample.media) > 1:
                    self.counts["further media of a sample, not used"] += len(sample.media) - 1
                item_id = f"{name}/{sample.key}" if len(self.tars) > 1 else sample.key
                yield self._item(item_id, tar, sample, split)
            if damage:
                raise UsageError(damage)
        if not self.counts["samples"]:
            raise UsageError(f"--input: {self.given} holds no sample with an image or video; {self.summary}")
        self.finished = True

    def _item(self, item_id: str, tar: str, sample: Sample, split: str) -> SourceItem:
        _, offset, size, member = min(sample.media, key=lambda one: (one[0].count("."), one[0]))
        told, language = sample.told, plain(sample.told.get("language")) or self.defaults.caption_language
        captions = [caption for _, text in sorted(sample.texts.items()) for caption in captions_in(text, language)]
        try:
            captions += captions_in(told, language)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"--input: {tar}: {sample.key}.json: {error}") from error
        return SourceItem(
            item_id,
            reference(tar, offset=offset, size=size, member=member),
            split_named(plain(told.get("split")), split),
            self.name,
            plain(told.get("license")) or self.defaults.license,
            distinct(captions),
        )


def key_of(member: str) -> tuple[str, str] | None:
    """A member's sample key and suffix in lower case: `a/b.seg.png` gives (`a/b`, `seg.png`); None for other names."""
    folder, slash, name = member.removeprefix("./").rpartition("/")
    stem, dot, suffix = name.partition(".")
    return (folder + slash + stem, suffix.lower()) if stem and dot else None


def is_safe(member: str) -> bool:
    """Whether a member's name stays inside its folder and can stand in a table."""
    try:
        member.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return not member.startswith(("/", "\\")) and ".." not in re.split(r"[/\\]", member) and "\0" not in member


def expand(pattern: str) -> Iterator[str]:
    """Expands `{000..012}` (as many digits as written) and `{a,b}`; several of them multiply."""
    found = BRACE.search(pattern)
    if not found:
        yield pattern
        return
    first, dots, last = found[1].partition("..")
    if dots and first.isdecimal() and last.isdecimal():
        choices: Iterator[str] = (f"{number:0{len(first)}}" for number in range(int(first), int(last) + 1))
    else:
        choices = iter(found[1].split(","))
    for choice in choices:
        yield from expand(pattern[: found.start()] + choice + pattern[found.end() :])


def tars_of_pattern(pattern: str) -> list[str]:
    """The tar files a brace or glob pattern names, sorted. Raises UsageError for one that is not there."""
    tars: list[str] = []
    for location in expand(pattern):
        if any(sign in location for sign in "*?["):
            matches = glob(absolute(location))
        else:
            matches = [absolute(location)] if exists(location) else []
        if not matches:
            raise UsageError(f"--input: {pattern} names {location}, which does not exist: check the pattern's bounds")
        tars += matches
    if not tars:
        raise UsageError(f"--input: {pattern} names no file: check the pattern's bounds")
    return sorted(set(tars))


def _refuse_compressed(tar: str, stream: BinaryIO) -> None:
    magic = stream.read(6)
    for start, tool in COMPRESSED.items():
        if magic.startswith(start):
            raise UsageError(f"--input: {tar} is compressed, wanted a plain tar: decompress it once with {tool}")


def _read(tar: str, stream: BinaryIO, samples: dict[str, Sample], counts: Counter[str]) -> str:
    """Fills `samples` from one tar; what is damaged about it, "" if nothing."""
    end = stream.seek(0, 2)
    stream.seek(0)
    try:
        with tarfile.open(fileobj=stream, mode="r:") as archive:
            while (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined] # it would keep each one
                if member.offset_data + member.size > end:
                    return _cut(tar, member.offset, f"{member.name} should have {member.size:,} bytes")
                if not member.isdir():
                    _add(tar, member, stream, samples, counts)
            last = archive.offset  # tarfile takes damage past the first member for the end
    except tarfile.TarError as error:
        return _cut(tar, stream.tell(), str(error))
    stream.seek(last)
    block = stream.read(tarfile.BLOCKSIZE)
    if block.strip(b"\0"):
        return _cut(tar, last, "what is there is no member's header")
    return "" if len(block) == tarfile.BLOCKSIZE else _cut(tar, last, "its end mark is missing")


def _cut(tar: str, offset: int, why: str) -> str:
    return f"--input: {tar} is cut or damaged at byte {offset:,} ({why}): fetch or write it again, or leave it out"


def _add(tar: str, member: tarfile.TarInfo, stream: BinaryIO, samples: dict[str, Sample], counts: Counter[str]) -> None:
    if not member.isreg() or member.issparse() or not is_safe(member.name):
        counts["members that are links, devices or outside their folder, not used"] += 1
        return
    named = key_of(member.name)
    if named is None:
        return
    key, suffix = named
    sample = samples.setdefault(key, Sample(key))
    if suffix in sample.suffixes:
        raise UsageError(
            f"--input: {tar} holds {key}.{suffix} twice, the second at byte {member.offset:,}: "
            "wanted one of each suffix a sample; write the tar again without it"
        )
    sample.suffixes.add(suffix)
    if f".{suffix.rpartition('.')[2]}" in MEDIA_SUFFIXES:
        sample.media.append((suffix, member.offset_data, member.size, member.name))
    elif suffix in CAPTION_SUFFIXES or suffix == "json":
        text = _text(tar, member, stream)
        if suffix != "json":
            sample.texts[suffix] = text
            return
        try:
            told = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"--input: {tar}: {member.name} is not JSON: {error}: mend it or leave it out") from error
        sample.told = told if isinstance(told, dict) else {}


def _text(tar: str, member: tarfile.TarInfo, stream: BinaryIO) -> str:
    if member.size > MAX_TEXT_BYTES:
        raise UsageError(f"--input: {tar}: {member.name} has {member.size:,} bytes, wanted {MAX_TEXT_BYTES:,} at most")
    stream.seek(member.offset_data)
    try:
        return stream.read(member.size).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"--input: {tar}: {member.name} is not text in UTF-8: mend it or leave it out") from error

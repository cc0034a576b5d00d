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
from pipeline.media.uri import reference
from pipeline.sources.items import Defaults, SourceItem, split_named, split_of_shard
from pipeline.sources.locations import MEDIA_SUFFIXES, absolute, exists, glob, open_binary, short_name
from pipeline.sources.rows import distinct, read_captions, read_fields

BRACE = re.compile(r"\{([^{}]*)\}")
COMPRESSED = {b"\x1f\x8b": "gunzip", b"BZh": "bunzip2", b"\xfd7zXZ": "unxz", b"\x28\xb5\x2f\xfd": "unzstd"}
CAPTION_SUFFIXES = ("txt", "caption")
MAX_TEXT_BYTES = 1 << 20  # of a caption or JSON member


@dataclass
class Sample:
    """The members of one key."""

    key: str
    media: dict[str, tuple[int, int, str]] = field(default_factory=dict)  # offset, size in bytes and name by suffix
    texts: dict[str, str] = field(default_factory=dict)  # by suffix
    row: dict[str, Any] = field(default_factory=dict)  # of its JSON member
    suffixes: set[str] = field(default_factory=set)


class TarSource:
    """The samples of tar files, in the order of the tars and of their members. Several tars: their paths begin the ids.

    Memory: the keys and captions of one tar. Compressed tars are refused: their members cannot be read in place.
    """

    kind = "webdataset"

    def __init__(self, given: str, tars: Sequence[str], defaults: Defaults):
        """Check that tars can be read.

        Args:
            given: The input on the command line.
            tars: Absolute locations, sorted, at least one.
            defaults: Fields of items whose sample does not name them.
        """
        self._given, self._tars, self._defaults = given, tars, defaults
        self.name = short_name(given)
        self._counts: Counter[str] = Counter()
        self._finished = False
        folders = [tar.rpartition("/")[0].split("/") for tar in tars]
        shared = itertools.takewhile(lambda parts: len(set(parts)) == 1, zip(*folders, strict=False))
        self._shared = sum(len(parts[0]) + 1 for parts in shared)  # characters of the folder that holds them all
        for tar in tars:
            with open_binary(tar) as stream:
                _refuse_compressed(tar, stream)

    @property
    def summary(self) -> str:
        """See Source."""
        parts = [f"{len(self._tars):,} tar files"]
        if self._finished:
            parts += [f"{count:,} {what}" for what, count in self._counts.items()]
        return f"webdataset {self._given}: {', '.join(parts)}"

    def items(self) -> Iterator[SourceItem]:
        """The samples with media; see Source."""
        self._finished, self._counts = False, Counter(samples=0)
        for tar in self._tars:
            name = tar[self._shared :].removesuffix(".tar")
            split = split_of_shard(name, self._defaults.split)
            with open_binary(tar) as stream:
                samples, damage = _read_samples(tar, stream, self._counts)
            for sample in samples:
                if not sample.media:
                    self._counts["samples without media, not used"] += 1
                    continue
                self._counts["samples"] += 1
                if len(sample.media) > 1:
                    self._counts["further media of a sample, not used"] += len(sample.media) - 1
                item_id = f"{name}/{sample.key}" if len(self._tars) > 1 else sample.key
                yield self._item(item_id, tar, sample, split)
            if damage:
                raise UsageError(damage)
        if not self._counts["samples"]:
            raise UsageError(f"--input: {self._given} holds no sample with an image or video; {self.summary}")
        self._finished = True

    def _item(self, item_id: str, tar: str, sample: Sample, split: str) -> SourceItem:
        suffix = min(sample.media, key=lambda suffix: (suffix.count("."), suffix))
        offset, size, member = sample.media[suffix]
        try:
            fields = read_fields(sample.row, self._defaults.caption_language)
        except ValueError as error:
            raise UsageError(f"--input: {tar}: {sample.key}.json: {error}") from error
        language = fields.language or self._defaults.caption_language
        captions = [caption for _, text in sorted(sample.texts.items()) for caption in read_captions(text, language)]
        return SourceItem(
            item_id,
            reference(tar, offset=offset, size=size, member=member),
            split_named(fields.split, split),
            self.name,
            fields.license or self._defaults.license,
            distinct([*captions, *fields.captions]),
        )


def split_member_name(member: str) -> tuple[str, str] | None:
    """A member's sample key and suffix in lower case: `a/b.seg.png` gives (`a/b`, `seg.png`); None for other names."""
    folder, slash, name = member.removeprefix("./").rpartition("/")
    stem, dot, suffix = name.partition(".")
    return (folder + slash + stem, suffix.lower()) if stem and dot else None


def is_safe(member: str) -> bool:
    """Whether a member's name stays inside its folder and can be stored in a table."""
    try:
        member.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return not member.startswith(("/", "\\")) and ".." not in re.split(r"[/\\]", member) and "\0" not in member


def expand_braces(pattern: str) -> Iterator[str]:
    """Expand `{000..012}` (as many digits as written) and `{a,b}`; several of them multiply."""
    match = BRACE.search(pattern)
    if not match:
        yield pattern
        return
    first, dots, last = match[1].partition("..")
    if dots and first.isdecimal() and last.isdecimal():
        choices: Iterator[str] = (f"{number:0{len(first)}}" for number in range(int(first), int(last) + 1))
    else:
        choices = iter(match[1].split(","))
    for choice in choices:
        yield from expand_braces(pattern[: match.start()] + choice + pattern[match.end() :])


def tars_of_pattern(pattern: str) -> list[str]:
    """The tar files that a brace or glob pattern names, sorted. Raises UsageError for one that does not exist."""
    tars: set[str] = set()
    for location in expand_braces(pattern):
        if any(sign in location for sign in "*?["):
            matches = glob(absolute(location))
        else:
            matches = [absolute(location)] if exists(location) else []
        if not matches:
            raise UsageError(f"--input: {pattern} names {location}, which does not exist: check the pattern's bounds")
        tars.update(matches)
    if not tars:
        raise UsageError(f"--input: {pattern} names no file: check the pattern's bounds")
    return sorted(tars)


def _refuse_compressed(tar: str, stream: BinaryIO) -> None:
    magic = stream.read(6)
    for start, tool in COMPRESSED.items():
        if magic.startswith(start):
            raise UsageError(f"--input: {tar} is compressed: decompress it once with {tool}")


def _read_samples(tar: str, stream: BinaryIO, counts: Counter[str]) -> tuple[list[Sample], str]:
    """The samples of one tar, and how it is damaged ("" if it is not)."""
    samples: dict[str, Sample] = {}
    damage = ""
    end = stream.seek(0, 2)
    stream.seek(0)
    try:
        with tarfile.open(fileobj=stream, mode="r:") as archive:
            while (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined] # it would keep each one
                if member.offset_data + member.size > end:
                    damage = _damage(tar, member.offset, f"{member.name} should have {member.size:,} bytes")
                    return list(samples.values()), damage
                if not member.isdir():
                    _add_member(tar, member, stream, samples, counts)
            last = archive.offset  # tarfile mistakes damage after the first member for the end
    except tarfile.TarError as error:
        return list(samples.values()), _damage(tar, stream.tell(), str(error))
    stream.seek(last)
    block = stream.read(tarfile.BLOCKSIZE)
    if block.strip(b"\0"):
        damage = _damage(tar, last, "there is no valid header of a member")
    elif len(block) < tarfile.BLOCKSIZE:
        damage = _damage(tar, last, "its end mark is missing")
    return list(samples.values()), damage


def _damage(tar: str, offset: int, reason: str) -> str:
    return f"--input: {tar} is cut or damaged at byte {offset:,} ({reason}): fetch or write it again, or leave it out"


def _add_member(
    tar: str, member: tarfile.TarInfo, stream: BinaryIO, samples: dict[str, Sample], counts: Counter[str]
) -> None:
    if not member.isreg() or member.issparse() or not is_safe(member.name):
        counts["members that are links, devices or outside their folder, not used"] += 1
        return
    parts = split_member_name(member.name)
    if parts is None:
        return
    key, suffix = parts
    sample = samples.setdefault(key, Sample(key))
    if suffix in sample.suffixes:
        raise UsageError(
            f"--input: {tar} holds {key}.{suffix} twice, the second at byte {member.offset:,}: write the tar again "
            "without it"
        )
    sample.suffixes.add(suffix)
    if f".{suffix.rpartition('.')[2]}" in MEDIA_SUFFIXES:
        sample.media[suffix] = (member.offset_data, member.size, member.name)
    elif suffix in CAPTION_SUFFIXES:
        sample.texts[suffix] = _read_text(tar, member, stream)
    elif suffix == "json":
        try:
            row = json.loads(_read_text(tar, member, stream))
        except (ValueError, RecursionError) as error:
            raise UsageError(
                f"--input: {tar}: {member.name} is not valid JSON: {error}: correct it or leave it out"
            ) from error
        sample.row = row if isinstance(row, dict) else {}


def _read_text(tar: str, member: tarfile.TarInfo, stream: BinaryIO) -> str:
    if member.size > MAX_TEXT_BYTES:
        raise UsageError(
            f"--input: {tar}: {member.name} has {member.size:,} bytes, more than the {MAX_TEXT_BYTES:,} of a text"
        )
    stream.seek(member.offset_data)
    try:
        return stream.read(member.size).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"--input: {tar}: {member.name} is not text in UTF-8: correct it or leave it out") from error

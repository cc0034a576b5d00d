"""Webdataset tar files: members grouped into samples by their name up to the first dot after the last `/`."""

import itertools
import json
import re
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import BinaryIO, NamedTuple

from pipeline.errors import UsageError
from pipeline.media.uri import reference
from pipeline.sources.items import Defaults, SourceItem, split_named, split_of_shard
from pipeline.sources.locations import MEDIA_SUFFIXES, absolute, exists, glob, open_binary, short_name
from pipeline.sources.rows import RowFields, distinct, read_captions, read_fields

BRACE = re.compile(r"\{([^{}]*)\}")
COMPRESSED = {b"\x1f\x8b": "gunzip", b"BZh": "bunzip2", b"\xfd7zXZ": "unxz", b"\x28\xb5\x2f\xfd": "unzstd"}
CAPTION_SUFFIXES = ("caption", "txt")
MAX_TEXT_BYTES = 1 << 20  # of a caption or JSON member


class Member(NamedTuple):
    """A file in a tar: where it begins, its size in bytes, its name."""

    offset: int
    size: int
    name: str


Sample = dict[str, Member]  # the members of one key by suffix


class TarSource:
    """The samples of tar files, in the order of the tars and of their members. Several tars: their paths begin the ids.

    Memory: the members of one tar. Compressed tars are refused: their members cannot be read in place.
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
                for key, members in samples.items():
                    media = [suffix for suffix in members if f".{suffix.rpartition('.')[2]}" in MEDIA_SUFFIXES]
                    if not media:
                        self._counts["samples without media, not used"] += 1
                        continue
                    self._counts["samples"] += 1
                    if len(media) > 1:
                        self._counts["further media of a sample, not used"] += len(media) - 1
                    item_id = f"{name}/{key}" if len(self._tars) > 1 else key
                    medium = members[min(media, key=lambda suffix: (suffix.count("."), suffix))]
                    uri = reference(tar, offset=medium.offset, size=medium.size, member=medium.name)
                    fields = self._read_fields(tar, stream, members)
                    license_name = fields.license or self._defaults.license
                    split_name = split_named(fields.split, split)
                    yield SourceItem(item_id, uri, split_name, self.name, license_name, fields.captions)
            if damage:
                raise UsageError(damage)
        if not self._counts["samples"]:
            raise UsageError(f"--input: {self._given} holds no sample with an image or video; {self.summary}")
        self._finished = True

    def _read_fields(self, tar: str, stream: BinaryIO, members: Sample) -> RowFields:
        """What the JSON member of a sample says, with the captions of its text members before its own."""
        try:
            row = json.loads(_read_text(tar, members["json"], stream)) if "json" in members else {}
            fields = read_fields(row if isinstance(row, dict) else {}, self._defaults.caption_language)
        except (ValueError, RecursionError) as error:
            name = members["json"].name
            raise UsageError(f"--input: {tar}: {name} is not JSON with captions ({error}): correct it") from error
        language = fields.language or self._defaults.caption_language
        texts = [_read_text(tar, members[suffix], stream) for suffix in CAPTION_SUFFIXES if suffix in members]
        captions = distinct([*read_captions(texts, language), *fields.captions])
        return replace(fields, captions=captions)


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


def _read_samples(tar: str, stream: BinaryIO, counts: Counter[str]) -> tuple[dict[str, Sample], str]:
    """The samples of one tar by key, and how it is damaged ("" if it is not)."""
    samples: dict[str, Sample] = {}
    end = stream.seek(0, 2)
    stream.seek(0)
    try:
        with tarfile.open(fileobj=stream, mode="r:") as archive:
            while (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined] # it would keep each one
                if member.offset_data + member.size > end:
                    return samples, _damage(tar, member.offset, f"{member.name} should have {member.size:,} bytes")
                if member.isdir():
                    continue
                if not member.isreg() or member.issparse() or not is_safe(member.name):
                    counts["members that are links, devices or outside their folder, not used"] += 1
                elif parts := split_member_name(member.name):
                    key, suffix = parts
                    sample = samples.setdefault(key, {})
                    if suffix in sample:
                        raise UsageError(
                            f"--input: {tar} holds {key}.{suffix} twice, the second at byte {member.offset:,}: write "
                            "the tar again without it"
                        )
                    sample[suffix] = Member(member.offset_data, member.size, member.name)
            last = archive.offset  # tarfile mistakes damage after the first member for the end
    except tarfile.TarError as error:
        return samples, _damage(tar, stream.tell(), str(error))
    stream.seek(last)
    block = stream.read(tarfile.BLOCKSIZE)
    if block.strip(b"\0"):
        return samples, _damage(tar, last, "there is no valid header of a member")
    return samples, "" if len(block) == tarfile.BLOCKSIZE else _damage(tar, last, "its end mark is missing")


def _damage(tar: str, offset: int, reason: str) -> str:
    return f"--input: {tar} is cut or damaged at byte {offset:,} ({reason}): fetch or write it again, or leave it out"


def _read_text(tar: str, member: Member, stream: BinaryIO) -> str:
    if member.size > MAX_TEXT_BYTES:
        raise UsageError(
            f"--input: {tar}: {member.name} has {member.size:,} bytes, more than the {MAX_TEXT_BYTES:,} of a text"
        )
    stream.seek(member.offset)
    try:
        return stream.read(member.size).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"--input: {tar}: {member.name} is not text in UTF-8: correct it or leave it out") from error

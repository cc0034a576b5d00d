"""Webdataset tar files: members grouped into samples by their name up to the first dot after the last `/`."""

import json
import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import BinaryIO, NamedTuple

from pipeline.errors import UsageError
from pipeline.media.uri import reference, stays_inside
from pipeline.sources.account import Account
from pipeline.sources.items import Defaults, SourceItem, split_named, split_of_shard
from pipeline.sources.locations import (
    MEDIA_SUFFIXES,
    NOT_UTF8,
    absolute,
    exists,
    glob,
    is_url,
    open_binary,
    printable,
    short_name,
)
from pipeline.sources.rows import RowFields, distinct, read_captions, read_fields

BRACE = re.compile(r"\{([^{}]*)\}")
CAPTION_SUFFIXES = ("caption", "txt")


class Member(NamedTuple):
    """A file in a tar: where it begins, its size in bytes, its name."""

    offset: int
    size: int
    name: str


Sample = dict[str, Member]  # the members of one key by suffix


class TarSource:
    """The samples of tar files, in the order of the tars and of their members. Several tars: their paths begin the ids.

    Memory: the members of one tar.
    """

    kind = "webdataset"

    def __init__(self, given: str, tars: Sequence[str], defaults: Defaults, account: Account | None = None):
        """Take in tars.

        Args:
            given: The input on the command line.
            tars: Absolute locations, sorted, at least one.
            defaults: Fields of items whose sample does not name them.
            account: That of their folder.
        """
        self._given, self._tars, self._defaults = given, tars, defaults
        self.name, self.account = short_name(given), account or Account()
        self._num_samples = 0
        # Characters of the folder that holds them all.
        self._shared = os.path.commonprefix(tars).rfind("/") + 1  # noqa: RUF071 - commonpath breaks URLs

    @property
    def summary(self) -> str:
        """See Source."""
        return f"webdataset {self._given}: {len(self._tars):,} tar files, {self._num_samples:,} samples"

    def items(self) -> Iterator[SourceItem]:
        """The samples with media; see Source."""
        self._num_samples = 0
        for tar in self._tars:
            name = tar[self._shared :].removesuffix(".tar")
            split = split_of_shard(name, self._defaults.split)
            with open_binary(tar) as stream:
                for key, members in _read_samples(tar, stream, self.account).items():
                    media = [suffix for suffix in members if f".{suffix.rpartition('.')[2]}" in MEDIA_SUFFIXES]
                    if not media:
                        self.account.add("not_taken", f"samples of {name}.tar have no image or video", key)
                        continue
                    self._num_samples += 1
                    first, *others = sorted(media, key=lambda suffix: (suffix.count("."), suffix))
                    for suffix in others:
                        text = f"media of {name}.tar are further ones of their sample"
                        self.account.add("not_taken", text, members[suffix].name)
                    medium = members[first]
                    fields = self._read_fields(tar, stream, key, members)
                    yield SourceItem(
                        f"{name}/{key}" if len(self._tars) > 1 else key,
                        reference(tar, offset=medium.offset, size=medium.size, member=medium.name),
                        split_named(fields.split, split),
                        self.name,
                        fields.license or self._defaults.license,
                        fields.captions,
                    )
        if not self._num_samples:
            raise UsageError(f"--input: {self._given} holds no sample with an image or video; {self.summary}")

    def _read_fields(self, tar: str, stream: BinaryIO, key: str, members: Sample) -> RowFields:
        """What the JSON member of a sample says, with the captions of its text members before its own."""
        texts = {}
        for suffix in ("json", *CAPTION_SUFFIXES):
            if suffix in members:
                stream.seek(members[suffix].offset)
                texts[suffix] = stream.read(members[suffix].size)
        try:
            row = json.loads(texts.pop("json", b"{}"))
            fields = read_fields(row if isinstance(row, dict) else {}, self._defaults.caption_language)
            language = fields.language or self._defaults.caption_language
            captions = list(read_captions([text.decode("utf-8-sig") for text in texts.values()], language))
        except (ValueError, RecursionError) as error:
            raise UsageError(f"--input: {tar}: the texts of {key} cannot be read ({error}): correct them") from error
        return replace(fields, captions=distinct([*captions, *fields.captions]))


def split_member_name(member: str) -> tuple[str, str] | None:
    """A member's sample key and suffix in lower case: `a/b.seg.png` gives (`a/b`, `seg.png`); None for other names."""
    folder, slash, name = member.removeprefix("./").rpartition("/")
    stem, dot, suffix = name.partition(".")
    return (folder + slash + stem, suffix.lower()) if stem and dot else None


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
        is_glob = any(sign in location for sign in "*?[")
        matches = glob(absolute(location)) if is_glob else [absolute(location)]
        if not matches or not exists(matches[0]):
            if matches and is_url(location):
                open_binary(location).close()  # for the server's reason
            raise UsageError(f"--input: {pattern} names {location}, which does not exist: check the pattern's bounds")
        tars.update(matches)
    if not tars:
        raise UsageError(f"--input: {pattern} names no file: check the pattern's bounds")
    return sorted(tars)


def _read_samples(tar: str, stream: BinaryIO, account: Account) -> dict[str, Sample]:
    """The samples of one tar by key. Raises UsageError if it is damaged."""
    samples: dict[str, Sample] = {}
    end = stream.seek(0, 2)
    stream.seek(0)
    try:
        with tarfile.open(fileobj=stream, mode="r:") as archive:
            while (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined] # it would keep each one
                if member.offset_data + member.size > end:
                    raise _damage(tar, member.offset, f"{member.name} should have {member.size:,} bytes")
                if member.isdir():
                    continue
                is_safe = stays_inside(member.name) and not NOT_UTF8.search(member.name)
                if not member.isreg() or member.issparse() or not is_safe:
                    text = f"members of {short_name(tar)}.tar are links, devices or outside their folder"
                    account.add("not_taken", text, printable(member.name))
                elif parts := split_member_name(member.name):
                    key, suffix = parts
                    if suffix in (sample := samples.setdefault(key, {})):
                        raise UsageError(f"--input: {tar} holds {key}.{suffix} twice: write the tar again without it")
                    sample[suffix] = Member(member.offset_data, member.size, member.name)
            last = archive.offset  # tarfile mistakes damage after the first member for the end
    except tarfile.TarError as error:
        raise _damage(tar, stream.tell(), str(error)) from error
    stream.seek(last)
    if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise _damage(tar, last, "there is neither a member nor an end mark")
    return samples


def _damage(tar: str, offset: int, reason: str) -> UsageError:
    return UsageError(
        f"--input: {tar} is cut, compressed or damaged at byte {offset:,} ({reason}): write it again, or leave it out"
    )

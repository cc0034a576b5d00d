"""Webdataset tar files: members grouped into samples by their names."""

import os
import posixpath
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from typing import BinaryIO, NamedTuple

from pipeline.errors import UsageError
from pipeline.media.uri import reference, stays_inside
from pipeline.sources import locations
from pipeline.sources.account import Account
from pipeline.sources.items import Defaults, SourceItem, split_of_shard
from pipeline.sources.listing import passed_over
from pipeline.sources.rows import RowFields, distinct, read_captions, read_column, read_fields, read_json
from pipeline.sources.sidecars import add_fields

BRACE = re.compile(r"\{([^{}]*)\}")
TEXT_SUFFIXES = ("txt", "text", "caption", "captions", "description")
META = ("meta", "metadata", "info")  # 1.meta.json is read like 1.json


class Member(NamedTuple):
    """A file in a tar: where it begins, its size in bytes, its name."""

    offset: int
    size: int
    name: str


Sample = dict[str, Member]  # members by suffix


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
        self.name, self.account = locations.short_name(given), account or Account()
        self._num_samples, self._unread = 0, dict[str, None]()
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
            with locations.open_binary(tar) as stream:
                for key, members in group_members(_read_members(tar, stream, self.account)).items():
                    media = [suffix for suffix in members if _is_medium(suffix)]
                    if not media:
                        self.account.add("not_taken", f"samples of {name}.tar have no image or video", key)
                        continue
                    self._num_samples += 1
                    first, *others = sorted(media, key=lambda suffix: (suffix.count("."), suffix))
                    for suffix in others:
                        text = f"media of {name}.tar are further ones of their sample"
                        self.account.add("not_taken", text, members[suffix].name)
                    offset, size, member = members[first]
                    item = SourceItem(
                        f"{name}/{key}" if len(self._tars) > 1 else key,
                        reference(tar, offset=offset, size=size, member=member),
                        split,
                        self.name,
                        self._defaults.license,
                    )
                    yield add_fields(item, self._read_fields(f"{name}.tar", stream, members))
        for name in self._unread:
            self.account.add("unknown_column", f"keys of {self.name}'s JSON were not understood", name)
        if not self._num_samples:
            raise UsageError(f"--input: {self._given} holds no sample with an image or video; {self.summary}")

    def _read_fields(self, label: str, stream: BinaryIO, members: Sample) -> list[RowFields]:
        """What the texts and the JSON of a sample say, the texts first. One that cannot be read is noted."""
        language = self._defaults.caption_language
        objects: list[RowFields] = []
        texts: list[RowFields] = []
        for suffix, member in sorted(members.items(), key=lambda item: not item[0].endswith("json")):
            part, _, last = suffix.rpartition(".")
            column = read_column(part or "caption")
            if last not in (*TEXT_SUFFIXES, "json"):
                continue
            if column.role not in ("captions", "texts") and not (last == "json" and part in META):
                self.account.add("not_taken", f"texts of {label} are no captions by their names", member.name)
                continue
            stream.seek(member.offset)
            try:
                text = stream.read(member.size).decode("utf-8-sig")
                value = read_json(text) if last == "json" else text
                if isinstance(value, dict) and (not part or part in META):
                    fields = read_fields(value, language)
                    language = fields.language or language
                else:
                    fields = RowFields(distinct(read_captions(value, column.language or language)))
            except (ValueError, RecursionError):
                self.account.add("bad_text", f"texts of {label} are not UTF-8, not JSON or no captions", member.name)
                continue
            (objects if last == "json" else texts).append(fields)
            self._unread.update(dict.fromkeys(fields.unread))
        return [*texts, *objects]


def split_member_name(member: str) -> tuple[str, str] | None:
    """A member's stem, and its last suffix in lower case; None for names without a suffix."""
    folder, slash, name = member.removeprefix("./").rpartition("/")
    stem, _, suffix = name.rpartition(".")
    return (folder + slash + stem, suffix.lower()) if stem else None


def group_members(stems: Mapping[str, Sample]) -> dict[str, Sample]:
    """Group the members of a tar into samples.

    A sample's key is its members' name up to the first dot, as webdataset has it: `1.jpg`, `1.seg.png`, `1.de.txt`. A
    dot may also belong to the name: `v1.0.jpg`, `v1.0.txt`, `v1.1.jpg`. A stem is a sample of its own if it has a
    medium and a text, or if no member has just the key and there are no parts such as `1.image.jpg`, `1.caption.txt`.

    Args:
        stems: The members by stem (the name up to the last dot) and suffix.

    Returns:
        The members by key and by what follows it.
    """
    groups: dict[str, list[str]] = {}
    for stem in stems:
        folder, slash, name = stem.rpartition("/")
        groups.setdefault(folder + slash + name.partition(".")[0], []).append(stem)
    samples: dict[str, Sample] = {}
    for key, names in groups.items():
        has_key = key in stems
        parts = [suffix for name in names if _is_part(name[len(key) + 1 :]) for suffix in stems[name]]
        are_parts = any(map(_is_medium, parts)) and not all(map(_is_medium, parts))
        texts = TEXT_SUFFIXES if has_key else (*TEXT_SUFFIXES, "json")
        for name in names:
            part, members = name[len(key) + 1 :], stems[name]
            has_both = any(map(_is_medium, members)) and not members.keys().isdisjoint(texts)
            if part and (has_both or not (has_key or are_parts)):
                samples[name] = members
            else:
                sample = samples.setdefault(key, {})
                sample.update({f"{part}.{suffix}".lower().lstrip("."): member for suffix, member in members.items()})
    return samples


def _is_part(name: str) -> bool:
    return read_column(name).role in ("file", "captions", "texts") or name in META


def _is_medium(suffix: str) -> bool:
    return f".{suffix.rpartition('.')[2]}" in locations.MEDIA_SUFFIXES


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
        matches = locations.glob(locations.absolute(location)) if is_glob else [locations.absolute(location)]
        if not matches or not locations.exists(matches[0]):
            if matches and locations.is_url(location):
                locations.open_binary(location).close()  # for the server's reason
            raise UsageError(f"--input: {pattern} names {location}, which does not exist: check the pattern's bounds")
        tars.update(matches)
    if not tars:
        raise UsageError(f"--input: {pattern} names no file: check the pattern's bounds")
    return sorted(tars)


def _read_members(tar: str, stream: BinaryIO, account: Account) -> dict[str, Sample]:
    """The members of one tar by stem and suffix. Raises UsageError if it is damaged."""
    stems: dict[str, Sample] = {}
    end = stream.seek(0, 2)
    stream.seek(0)
    try:
        with tarfile.open(fileobj=stream, mode="r:") as archive:
            while (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined] # it would keep each one
                if member.offset_data + member.size > end:
                    raise _damage(tar, member.offset, f"{member.name} should have {member.size:,} bytes")
                parts = posixpath.normpath(member.name).split("/")
                if member.isdir() or any(passed_over(part, member.name, account) for part in parts if part != ".."):
                    continue
                is_safe = stays_inside(member.name) and not locations.NOT_UTF8.search(member.name)
                if not member.isreg() or member.issparse() or not is_safe:
                    text = f"members of {locations.short_name(tar)}.tar are links, devices or outside their folder"
                    account.add("not_taken", text, locations.printable(member.name))
                elif names := split_member_name(member.name):
                    stem, suffix = names
                    members = stems.setdefault(stem, {})
                    if suffix in members:  # as tar does, which extracts the last one
                        account.add("not_taken", f"members of {locations.short_name(tar)}.tar come again", member.name)
                    members[suffix] = Member(member.offset_data, member.size, member.name)
            last = archive.offset  # tarfile mistakes damage after the first member for the end
    except tarfile.TarError as error:
        raise _damage(tar, stream.tell(), str(error)) from error
    stream.seek(last)
    if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise _damage(tar, last, "there is neither a member nor an end mark")
    return stems


def _damage(tar: str, offset: int, reason: str) -> UsageError:
    return UsageError(
        f"--input: {tar} is cut, compressed or damaged at byte {offset:,} ({reason}): write it again, or leave it out"
    )

"""`NAME.caption.txt`, as NRCCR and those after it write captions: one per line, `ITEM#MARK#J TEXT`.

MARK gives the language and the origin of the text; `enc` is English.

    enc           a human caption in English, number J of its item; `en` means the same
    de            a human caption in that language, one of LANGUAGES
    enc2de        a machine's translation of the English caption J
    enc2de2enc    that one translated back, and
    de2enc        a human caption's translation into English: neither is used

A file's name may hold one of these too, as a part between `_`: `multi30ktest_de_2016`, `Flickr30ktrain_google_enc2de`.
Name and line have to agree, with one exception: lines marked `enc` in a file named after a language are captions in
that language, as long as none of their items is trained on, where they could as well be English.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.sources.benchmarks.files import bare, read_lines, refusal
from pipeline.sources.benchmarks.importer import Importer, first_names
from pipeline.sources.items import SourceCaption, clean_text

LANGUAGES = ("de", "fr", "cs", "zh", "ja")
SUFFIX = ".caption.txt"
_ANY = "|".join(LANGUAGES)
MARK = re.compile(rf"(?P<human>enc?|{_ANY})|enc?2(?P<to>{_ANY})|(?:enc?2)?(?:{_ANY})2enc?")
LINE = re.compile(r"(?P<item>[^ ]+)#(?P<mark>[^# ]*)#(?P<number>[0-9]{1,6})")
ENGLISH = ("en", "human")


@dataclass(frozen=True)
class Line:
    """One caption of an item. `place` is where it stands, for messages."""

    item: str
    language: str
    origin: str  # "human", "mt", or "" for a text translated back
    number: int
    text: str
    generic: bool  # the line is marked `enc`, the file is named after another language
    place: str


def read_captions(path: Path) -> Iterator[Line]:
    """The captions of one file. Raises UsageError, naming the line, for one that would need a guess."""
    marks = [mark for part in path.name.removesuffix(SUFFIX).split("_") if (mark := MARK.fullmatch(part))]
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        place = f"{path} line {number:,}"
        caption_id, _, text = line.partition(" ")
        parts = LINE.fullmatch(caption_id)
        mark = parts and MARK.fullmatch(parts["mark"])
        if not parts or not mark:
            languages = ", ".join(LANGUAGES)
            raise refusal(place, repr(line[:60]), f"ITEM#MARK#NUMBER TEXT, marked enc, or de or enc2de ({languages})")
        meaning = named = _meaning(mark)
        if marks and (named := _meaning(marks[0])) != meaning and (meaning != ENGLISH or named[1] != "human"):
            file = marks[0][0]
            raise UsageError(f"--input: {place}: the mark {mark[0]!r} is in a file named {file!r}. Rename the file")
        generic = named != meaning
        yield Line(bare(parts["item"]), *named, int(parts["number"]), clean_text(text), generic, place)


def _meaning(mark: re.Match[str]) -> tuple[str, str]:
    """(language, origin); the origin of a text translated back is ""."""
    if mark["to"]:
        return mark["to"], "mt"
    return (mark["human"], "human") if mark["human"] in LANGUAGES else ("en", "human" if mark["human"] else "")


@dataclass
class Captions:
    """The captions of a set's items, by the rules that all its files share. Counts what it leaves out.

    Items that are trained on keep English captions and machine translations of these: a human caption in another
    language is what the protocol forbids to train on. Held-out items keep human captions in every language: queries
    are written by people.
    """

    splits: dict[str, str]  # item id → split
    importer: Importer
    lines: dict[str, dict[tuple[str, str, int], Line]] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)  # lines by reason, in words
    unlisted: list[str] = field(default_factory=list)

    def add(self, line: Line) -> None:
        """Keep a line or count it as left out. Raises UsageError where nobody can tell what it is."""
        split = self.splits.get(line.item)
        if split is None:
            self.unlisted.append(line.item)
        elif line.generic and split == "train":
            raise UsageError(
                f"--input: {line.place} is marked enc, in a file named after {line.language}, and its item {line.item} "
                "is trained on: its language is unclear. Rename the file."
            )
        elif not line.text:
            self.left_out["blank captions"] += 1
        elif not line.origin:
            self.left_out["captions translated back into English"] += 1
        elif split == "train" and line.origin == "human" and line.language != "en":
            self.left_out[f"human captions in {line.language} of items that are trained on"] += 1
        elif split != "train" and line.origin == "mt":
            self.left_out[f"translations into {line.language} of items that are held out"] += 1
        else:
            key = (line.language, line.origin, line.number)
            other = self.lines.setdefault(line.item, {}).setdefault(key, line)
            if other.text != line.text:
                raise UsageError(
                    f"--input: {line.place} is caption {line.number} of {line.item} in {line.language} a second time "
                    f"(after {other.place}). Where they are of two tasks, keep the files of one."
                )

    def of(self, item: str) -> list[SourceCaption]:
        """An item's captions: English first, then by language; human before mt; by number."""
        lines = self.lines.get(item, {})
        order = sorted(lines, key=lambda key: (key[0] != "en", *key))
        return [SourceCaption(lines[key].text, *key) for key in order]

    def check(self) -> None:
        """Report what was left out and what is missing. Raises UsageError for translations of absent captions."""
        for what, count in sorted(self.left_out.items()):
            self.importer.note(f"{what}: not used", count)
        names = first_names(dict.fromkeys(self.unlisted))
        self.importer.count(f"captions of ids that are in no list ({names})", len(self.unlisted), 0)
        english, translated = 0, Counter[str]()
        for item, lines in self.lines.items():
            english += sum(key[:2] == ENGLISH for key in lines) if self.splits[item] == "train" else 0
            for line in lines.values():
                if line.origin == "mt" and (*ENGLISH, line.number) not in lines:
                    missing = f"{line.place} translates caption {line.number} of {item}, which is not here"
                    raise UsageError(f"--input: {missing}. Fetch the English file of the release.")
                translated[line.language] += line.origin == "mt"
        for language, count in sorted(translated.items()):
            if count:
                self.importer.note(f"of {english:,} captions are not translated into {language}", english - count)
        silent = [item for item in self.splits if item not in self.lines]
        untrained = [item for item in silent if self.splits[item] == "train"]
        self.importer.count(f"items to train on without a caption ({first_names(untrained)})", len(untrained), 0)
        self.importer.note("held-out items have no caption", len(silent) - len(untrained))

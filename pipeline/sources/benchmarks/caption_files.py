"""`NAME.caption.txt`, as NRCCR and those after it write captions: one a line, `ITEM#MARK#J TEXT`.

MARK tells the language and where the text is from; `enc` is English.

    enc           a human caption in English, number J of its item; `en` means the same
    de            a human caption in that language, of LANGUAGES
    enc2de        a machine's translation of the English caption J
    enc2de2enc    that one translated back, and
    de2enc        a human caption's translation into English: neither is used

A file's name may say one of these too, as a part between `_`: `multi30ktest_de_2016`, `Flickr30ktrain_google_enc2de`.
Name and line have to say the same, with one exception: lines marked `enc` in a file named by a language are captions
in that language, as long as none of their items is trained on, for there they could as well be English.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.sources.benchmarks.bigfile import bare
from pipeline.sources.benchmarks.checks import Checks, read_lines
from pipeline.sources.items import SourceCaption, clean_text

LANGUAGES = ("de", "fr", "cs", "zh", "ja")
SUFFIX = ".caption.txt"
_ANY = "|".join(LANGUAGES)
MARK = re.compile(rf"(?P<human>enc?|{_ANY})|enc?2(?P<to>{_ANY})|(?P<back>enc?2({_ANY})2enc?|({_ANY})2enc?)")
LINE = re.compile(r"(?P<item>[^ ]+)#(?P<mark>[^# ]*)#(?P<number>[0-9]{1,6})")


@dataclass(frozen=True)
class Line:
    """One caption: of which item, in which language and from where, and the place it stands at, for messages."""

    item: str
    language: str
    origin: str  # "human", "mt", or "" for what is translated back
    number: int
    text: str
    generic: bool  # the line says `enc`, the file's name another language
    place: str


def lines_of(path: Path) -> Iterator[Line]:
    """The captions of one file. Raises UsageError, naming the line, for one that cannot be read without a guess."""
    named = _mark_of(path.name.removesuffix(SUFFIX), str(path))
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        place = f"{path} line {number:,}"
        cap_id, _, text = line.lstrip("\ufeff").partition(" ")
        found = LINE.fullmatch(cap_id)
        if not found:
            raise UsageError(f"--input: {place}: got {line[:60]!r}, wanted ITEM#enc#NUMBER TEXT: mend or drop the line")
        mark = MARK.fullmatch(found["mark"])
        if not mark:
            raise UsageError(
                f"--input: {place}: got the mark {found['mark']!r}, wanted enc, enc2de or de, or the like for one of "
                f"{', '.join(LANGUAGES)}: mend it, or take the file away"
            )
        generic = False
        language, origin = _meaning(mark)
        if named and _meaning(named) != (language, origin):
            generic = bool(named["human"]) and (language, origin) == ("en", "human")
            if not generic:
                raise UsageError(
                    f"--input: {place}: got the mark {found['mark']!r} in a file whose name says {named[0]!r}, wanted "
                    "both to say the same: rename the file, or take it away"
                )
            language, origin = _meaning(named)
        yield Line(bare(found["item"]), language, origin, int(found["number"]), clean_text(text), generic, place)


def _mark_of(name: str, where: str) -> re.Match[str] | None:
    marks = [mark for part in name.split("_") if (mark := MARK.fullmatch(part))]
    if len(marks) > 1:
        both = " and ".join(mark[0] for mark in marks)
        raise UsageError(f"--input: {where}: got the marks {both} in the file's name, wanted one: rename the file")
    return marks[0] if marks else None


def _meaning(mark: re.Match[str]) -> tuple[str, str]:
    """(language, origin); origin "" is translated back."""
    if mark["back"]:
        return "en", ""
    if mark["to"]:
        return mark["to"], "mt"
    return ("en" if mark["human"] in ("en", "enc") else mark["human"]), "human"


@dataclass
class Captions:
    """The captions of a set's items, by the rules that all its files share. Counts what it leaves out.

    Items that are trained on keep English captions and machine translations of these: a human caption in another
    language is what the protocol forbids to train on. Items held out keep human captions in every language: a query is
    no machine's text.
    """

    splits: dict[str, str]  # by item id
    checks: Checks
    texts: dict[str, dict[tuple[str, str, int], Line]] = field(default_factory=dict)
    left: dict[str, int] = field(default_factory=dict)  # what was left out, in words, and how often
    unlisted: list[str] = field(default_factory=list)

    def read(self, paths: Sequence[Path]) -> None:
        for path in paths:
            for line in lines_of(path):
                self.add(line)

    def add(self, line: Line) -> None:
        split = self.splits.get(line.item)
        if split is None:
            self.unlisted.append(line.item)
            return
        if line.generic and split == "train":
            raise UsageError(
                f"--input: {line.place}: got a caption marked enc of {line.item}, which is trained on, in a file named "
                f"by {line.language}, wanted a mark that says which of the two it is: rename the file"
            )
        if not line.text:
            self._leave("blank captions")
        elif not line.origin:
            self._leave("captions translated back into English")
        elif split == "train" and line.origin == "human" and line.language != "en":
            self._leave(f"human captions in {line.language} of items that are trained on")
        elif split != "train" and line.origin == "mt":
            self._leave(f"translations into {line.language} of items that are held out")
        else:
            of_item = self.texts.setdefault(line.item, {})
            key = (line.language, line.origin, line.number)
            other = of_item.setdefault(key, line)
            if other is line:
                return
            if other.text != line.text or other.place.rpartition(" line ")[0] == line.place.rpartition(" line ")[0]:
                raise UsageError(
                    f"--input: {line.place}: got caption {line.number} of {line.item} in {line.language} a second time "
                    f"(after {other.place}), wanted each once: where they are of two tasks, keep the files of one"
                )
            self._leave("captions that stand in two files")

    def _leave(self, what: str) -> None:
        self.left[what] = self.left.get(what, 0) + 1

    def of(self, item: str) -> list[SourceCaption]:
        """English first, then by language; human before mt; by number."""
        order = sorted(self.texts.get(item, {}), key=lambda key: (key[0] != "en", *key))
        lines = self.texts.get(item, {})
        return [SourceCaption(lines[key].text, key[0], key[1], key[2]) for key in order]

    def check(self) -> None:
        """Tells what was left out and what is missing. Raises UsageError for translations of no caption."""
        for what, count in sorted(self.left.items()):
            self.checks.note(f"{count:,} {what}: not used")
        if self.unlisted:
            first = ", ".join(dict.fromkeys(self.unlisted[:3]))
            self.checks.count(f"captions of ids that are in no list ({first}, …)", len(self.unlisted), 0)
        english, translated = 0, dict[str, int]()
        orphans: list[Line] = []
        for lines in self.texts.values():
            numbers = {number for language, origin, number in lines if (language, origin) == ("en", "human")}
            for (language, origin, number), line in lines.items():
                if origin == "mt":
                    translated[language] = translated.get(language, 0) + 1
                    orphans += [] if number in numbers else [line]
            english += len(numbers) if self.splits[next(iter(lines.values())).item] == "train" else 0
        if orphans:
            raise UsageError(
                f"--input: {orphans[0].place}: got a translation of caption {orphans[0].number} of {orphans[0].item}, "
                f"which is not here ({len(orphans):,} such translations), wanted the caption that it translates: "
                "fetch the English file of the same release"
            )
        for language, count in sorted(translated.items()):
            if count < english:
                self.checks.note(f"{count:,} of {english:,} captions are translated into {language}")
        without = [item for item, split in self.splits.items() if split == "train" and item not in self.texts]
        if without:
            first = ", ".join(without[:3])
            self.checks.count(f"items to train on without a caption ({first}, …)", len(without), 0)
        held_out = {split for split in self.splits.values() if split != "train"}
        for split in sorted(held_out):
            mute = sum(1 for item, its in self.splits.items() if its == split and item not in self.texts)
            if mute:
                self.checks.note(f"{mute:,} items of {split} have no caption")

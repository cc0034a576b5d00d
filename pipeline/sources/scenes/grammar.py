"""Captions of scenes in words: a small grammar for each language, whose words are in `words/LANGUAGE.yaml`.

message → template of its form, filled with noun phrases in their cases → words → sentence
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from pipeline.sources.scenes.content import Group, Message

SOURCE = "en"
TARGETS = ("de", "cs", "zh")
LANGUAGES = (SOURCE, *TARGETS)


@dataclass(frozen=True)
class Grammar:
    """One language.

    Words that are inflected by case are written as one form, or as one for each of `cases`, with blanks between.
    `noun_phrase` names the parts of a noun phrase. A template names these parts: `first` and `second` (the groups; the
    second one in the case that the relation takes), `object` (the first group as an object), `all` and `all_objects`
    (every group), `relation`, `where` (the background), `place`, `motion`, and the language's own `verbs`.
    """

    noun_phrase: str
    cases: Sequence[str]
    nouns: Mapping[str, Sequence[str]]  # class (gender or measure word), singular, plural where it differs
    numbers: Mapping[int, str | Mapping[str, str]]  # the word or the article; where it agrees, by class
    templates: Mapping[str, str]  # form → template
    backgrounds: Mapping[str, str]
    relations: Mapping[str, tuple[str, str]]  # the words, and the case of what follows them
    places: Mapping[str, str]
    motions: Mapping[str, str]
    conjunction: str
    adjectives: Mapping[str, str] = field(default_factory=dict)  # stems, where they differ from the English word
    endings: Mapping[str, tuple[str, str]] = field(default_factory=dict)  # class → singular, plural
    spelling: Mapping[str, str] = field(default_factory=dict)  # replacements in a noun phrase
    verbs: Mapping[str, tuple[str, str]] = field(default_factory=dict)  # singular, plural
    surroundings: Mapping[str, str] = field(default_factory=dict)  # the backgrounds as things; only in English
    spaced: bool = True

    def write_group(self, group: Group, sized: bool, case: str = "nom") -> str:
        """A group in a case: `two small red cars`, with its size if `sized`."""
        noun_class, *forms = self.nouns[group.kind]
        plural = group.count > 1
        number = self.numbers[group.count]
        ending = self._in_case(self.endings.get(noun_class, ("", ""))[plural], case)
        text = self.noun_phrase.format(
            **{"class": noun_class},
            number=self._in_case(number if isinstance(number, str) else number[noun_class], case),
            size=self.adjectives.get(group.size, group.size) + ending if sized else "",
            colour=self.adjectives.get(group.colour, group.colour) + ending,
            noun=self._in_case(forms[-1] if plural else forms[0], case),
        )
        text = " ".join(text.split())
        for before, after in self.spelling.items():
            text = text.replace(before, after)
        return text

    def _in_case(self, text: str, case: str) -> str:
        forms = text.split()
        return forms[self.cases.index(case)] if len(forms) > 1 else text

    def words(self, message: Message) -> list[str]:
        """The caption's words, without capital and full stop."""
        subjects, objects = (
            [self.write_group(group, message.sized, case) for group in message.groups] for case in ("nom", "acc")
        )
        relation = second = ""
        if message.relation:
            relation, case = self.relations[message.relation]
            second = self.write_group(message.groups[1], message.sized, case)
        several = message.groups[0].count > 1
        text = self.templates[message.form].format(
            first=subjects[0],
            second=second,
            object=objects[0],
            all=self.conjunction.join(subjects),
            all_objects=self.conjunction.join(objects),
            relation=relation,
            where=self.backgrounds.get(message.background, ""),
            place=self.places.get(message.place, ""),
            motion=self.motions.get(message.motion, ""),
            **{verb: forms[several] for verb, forms in self.verbs.items()},
        )
        return text.split()

    def sentence(self, words: Sequence[str]) -> str:
        """The words as a sentence, with a capital and a full stop."""
        if not self.spaced:
            return "".join(words).rstrip("，") + "。"
        text = " ".join(words).rstrip(",")
        return f"{text[:1].upper()}{text[1:]}."


@functools.cache
def grammar(language: str) -> Grammar:
    """The grammar of one of LANGUAGES."""
    path = Path(__file__).parent / "words" / f"{language}.yaml"
    return Grammar(**yaml.safe_load(path.read_text(encoding="utf-8")))


def caption(message: Message, language: str) -> str:
    """The message as a sentence."""
    return grammar(language).sentence(grammar(language).words(message))


def parse_languages(text: str) -> tuple[str, ...]:
    """Target languages, separated by commas, each once, in the order of TARGETS. Raises ValueError for any other."""
    languages = {part.strip() for part in text.split(",")}
    if languages - set(TARGETS):
        raise ValueError(f"{text!r} is not one or more of {', '.join(TARGETS)}")
    return tuple(language for language in TARGETS if language in languages)

"""How a message becomes the caption of a language.

message → template of its form, filled with noun phrases in their cases → words → sentence
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Protocol

from pipeline.sources.scenes.content import Group, Message


class NounPhrase(Protocol):
    """Writes a group as `two small red cars`."""

    def __call__(self, group: Group, sized: bool, case: str = "nom") -> str:
        """The group in a case: nom, gen, dat, acc or ins. `sized`: with its size."""


@dataclasses.dataclass(frozen=True)
class Grammar:
    """One language.

    A template names these parts: `first` and `second` (the groups; the second one in the case that the relation
    takes), `object` (the first group as an object), `all` and `all_objects` (every group), `relation`, `where` (the
    background), `place`, `motion`, and the language's own `verbs`.
    """

    noun_phrase: NounPhrase
    templates: Mapping[str, str]  # by form
    backgrounds: Mapping[str, str]
    relations: Mapping[str, tuple[str, str]]  # the words, and the case of what follows them
    places: Mapping[str, str]
    motions: Mapping[str, str]
    conjunction: str
    verbs: Mapping[str, tuple[str, str]] = dataclasses.field(default_factory=dict)  # singular, plural
    spaced: bool = True

    def words(self, message: Message) -> list[str]:
        """The caption's words, without capital and full stop. Raises ValueError for an unknown form."""
        if message.form not in self.templates:
            raise ValueError(f"got the form {message.form!r}, expected one of {', '.join(self.templates)}")
        subjects, objects = (
            [self.noun_phrase(group, message.sized, case) for group in message.groups] for case in ("nom", "acc")
        )
        relation = second = ""
        if message.relation:
            relation, case = self.relations[message.relation]
            second = self.noun_phrase(message.groups[1], message.sized, case)
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

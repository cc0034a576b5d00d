"""What weak models would write: translations and descriptions of scenes, with faults at a given rate.

translation: message → each fact wrong with probability noise/2 → words → each dropped or swapped with the next one
description: facts of the scene → each wrong with probability errors → the text of a view
"""

from collections.abc import Sequence

import numpy as np

from pipeline.captioning.prompts import BUILT_IN
from pipeline.sources.scenes.content import Group, Message, Scene, generator, mistaken
from pipeline.sources.scenes.grammar import SOURCE, caption, grammar

WRONG, DROPPED, SWAPPED = 0.5, 0.25, 0.25  # probabilities at noise level 1
BLUR = 0.08  # standard deviation of the noise on the estimate of quality
LEAST = 0.01  # a quality of 0 would mean "not measured"
CAPTIONER = "scenes:simulated"
VIEWS = tuple(BUILT_IN)


def translation(message: Message, language: str, noise: float, seed: int, caption_id: str) -> tuple[str, float]:
    """The message in `language` at a noise level from 0 (the grammar's own sentence) to 1, and its quality in (0, 1].

    The quality is 1 less the share of words changed, blurred, so right only on average. The same for the same seed,
    caption and language.
    """
    rng, target = generator(seed, caption_id, language), grammar(language)
    clean = words = target.words(message)
    if noise > 0:
        words = _disturb(target.words(mistaken(message, rng, WRONG * noise)), noise, rng)
    quality = 1 - changed_share(clean, words) + BLUR * float(rng.standard_normal())
    return target.sentence(words), min(1.0, max(LEAST, quality))


def _disturb(words: Sequence[str], noise: float, rng: np.random.Generator) -> list[str]:
    """Words dropped and neighbours swapped; at least one word is left."""
    words = [word for word in words if rng.random() >= DROPPED * noise] or [words[0]]
    at = 0
    while at < len(words) - 1:
        if rng.random() < SWAPPED * noise:
            words[at], words[at + 1] = words[at + 1], words[at]
            at += 1  # each word is swapped once at most
        at += 1
    return words


def changed_share(clean: Sequence[str], words: Sequence[str]) -> float:
    """Edit distance in words over the length of the longer one, in [0, 1]."""
    previous = list(range(len(words) + 1))
    for row, expected in enumerate(clean, 1):
        current = [row]
        for column, word in enumerate(words, 1):
            current.append(min(previous[column] + 1, current[-1] + 1, previous[column - 1] + (expected != word)))
        previous = current
    return previous[-1] / max(len(clean), len(words))


def descriptions(scene: Scene, errors: float, seed: int, item_id: str) -> dict[str, str]:
    """The text of each view. Each fact of each view is wrong with probability `errors`, independently.

    The facts are the groups' kinds, colours, sizes and numbers, the relation, place, background and direction.
    """
    facts = Message("", scene.groups, True, scene.background, scene.relation, scene.place, scene.motion)
    texts = {}
    for view in VIEWS:
        stated = mistaken(facts, generator(seed, item_id, view), errors) if errors > 0 else facts
        texts[view] = _write_views(stated, scene.mover)[view]
    return texts


def _write_views(facts: Message, mover: int) -> dict[str, str]:
    english, first, moving = grammar(SOURCE), facts.groups[0], facts.groups[mover]
    surroundings = english.surroundings[facts.background]
    location = movement = ""
    if facts.relation:
        location = f"{_subject(first)} {english.relations[facts.relation][0]} the {_counted(facts.groups[1])}."
    elif facts.place:
        location = f"{_subject(first)} {english.places[facts.place]}."
    if facts.motion:
        still = [group for number, group in enumerate(facts.groups) if number != mover]
        sentences = [f"The {_counted(group)} {'do' if group.count > 1 else 'does'} not move." for group in still]
        movement = " ".join([f"{_subject(moving)} moving {english.motions[facts.motion]}.", *sentences])
        short = Message("moving_there", (moving,), False, facts.background, motion=facts.motion)
    else:
        form = "related_there" if facts.relation else "there"
        short = Message(form, facts.groups, False, facts.background, facts.relation)
    detail = [caption(Message("shown", facts.groups, True), SOURCE), location]
    names = [_counted(group) if group.count > 1 else f"one {_counted(group)}" for group in facts.groups]
    return {
        "short": caption(short, SOURCE),
        "detail": " ".join(filter(None, [*detail, f"In the background is {surroundings}.", movement])),
        "objects": f"{', '.join([*names, surroundings]).capitalize()}.",
        "attributes": " ".join(f"{_subject(group)} {group.colour} and {group.size}." for group in facts.groups),
        "actions": movement or f"Nothing moves. {location}",
    }


def _subject(group: Group) -> str:
    """`The two cars are`."""
    return f"The {_counted(group)} {grammar(SOURCE).verbs['be'][group.count > 1]}"


def _counted(group: Group) -> str:
    """`two cars`, `car`."""
    english = grammar(SOURCE)
    _, singular, plural = english.nouns[group.kind]
    return f"{english.numbers[group.count]} {plural}" if group.count > 1 else singular

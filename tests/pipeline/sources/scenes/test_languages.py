import itertools
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import UsageError
from pipeline.sources.scenes import chinese, czech, english, french, german, japanese
from pipeline.sources.scenes.content import (
    BACKGROUNDS,
    COLOURS,
    COUNTS,
    KINDS,
    MOTIONS,
    PLACES,
    RELATIONS,
    SIZES,
    Group,
    Sampler,
)
from pipeline.sources.scenes.languages import TARGETS, UNSPACED, WORDS, caption, check_languages, sentence
from pipeline.sources.scenes.messages import BESIDE, FORMS, Message, message, mistaken

GROUPS = [Group(*facts) for facts in itertools.product(KINDS, COLOURS, SIZES, COUNTS)]
LATIN = {"en": english, "de": german, "fr": french, "cs": czech}
groups = st.builds(Group, *map(st.sampled_from, (KINDS, COLOURS, SIZES, COUNTS)))


@st.composite
def any_message(draw):
    form = draw(st.sampled_from(sorted(FORMS)))
    two = form in ("related", "related_there", "beside", "passing") or (
        form in ("listed", "shown") and draw(st.booleans())
    )
    facts = {}
    if form in ("related_there", "listed", "there", "moving_there"):
        facts["background"] = draw(st.sampled_from(BACKGROUNDS))
    if form in ("related", "related_there", "passing"):
        facts["relation"] = draw(st.sampled_from(RELATIONS))
    if form == "beside":
        facts["relation"] = BESIDE
    if form == "placed":
        facts["place"] = draw(st.sampled_from(PLACES))
    if form in ("moving", "moving_there", "passing"):
        facts["motion"] = draw(st.sampled_from(MOTIONS))
    return Message(form, tuple(draw(groups) for _ in range(1 + two)), draw(st.booleans()), **facts)


@settings(max_examples=300, deadline=None)
@given(any_message())
def test_a_caption_is_a_whole_sentence(said):
    for language in WORDS:
        text = caption(said, language)
        assert text == text.strip() and "  " not in text and not re.search(r"[{}_\[\]]|None", text)
        assert text.count("。" if language in UNSPACED else ".") == 1
        if language in UNSPACED:
            assert text.endswith("。") and not re.search(r"[\x00-\x7f]", text)
        else:
            assert text[0].isupper() and text.endswith(".") and text.isprintable()


@settings(max_examples=200, deadline=None)
@given(any_message(), st.integers(0, 2**32))
def test_what_differs_is_said_differently(one, seed):
    two = mistaken(one, np.random.default_rng(seed), 0.15)

    def unsized(said):
        """Where no sizes are said, they are all the same."""
        shown = said.groups if said.sized else [(g.kind, g.colour, g.count) for g in said.groups]
        return tuple(shown), said.background, said.relation, said.place, said.motion

    for language in WORDS:
        if unsized(one) != unsized(two):
            assert caption(one, language) != caption(two, language)


@pytest.mark.parametrize("language", list(WORDS))
def test_every_group_has_a_name_of_its_own(language):
    names = {caption(Message("shown", (group,), True), language) for group in GROUPS}
    assert len(names) == len(GROUPS) == 14 * 8 * 2 * 4


@pytest.mark.parametrize("language", list(LATIN))
def test_several_are_in_the_plural_with_their_numeral(language):
    grammar = LATIN[language]
    for group in GROUPS:
        words = set(WORDS[language](Message("shown", (group,), True)))
        one, many = forms(language, group.kind)
        assert words & (many if group.count > 1 else one), group
        if one != many:
            assert not words & ((one if group.count > 1 else many) - (many if group.count > 1 else one)), group
        numeral = grammar.NUMBERS.get(group.count, ())
        numeral = {numeral} if isinstance(numeral, str) else set(numeral)
        if language == "cs" and group.count == 2:
            numeral.add("dvě")
        assert bool(words & numeral) == (group.count > 1)


def forms(language, kind):
    """The forms of the noun after `shows`, for one and for several."""
    entry = LATIN[language].NOUNS[kind]
    if language == "en":
        return {entry[0]}, {entry[1]}
    if language == "cs":
        return {entry[1].split()[2]}, {entry[2].split()[2]}
    return {entry[1]}, {entry[2]}


def test_every_table_has_every_word():
    for grammar in (english, german, french, czech, chinese, japanese):
        assert set(grammar.NOUNS) == set(KINDS)
        assert set(grammar.BACKGROUNDS) == set(BACKGROUNDS)
        assert set(grammar.RELATIONS) == {*RELATIONS, BESIDE}
        assert set(grammar.PLACES) == set(PLACES)
        assert set(grammar.MOTIONS) == set(MOTIONS)
    for grammar in (german, french, czech, japanese):
        assert set(grammar.ADJECTIVES) == {*COLOURS, *SIZES}
    assert set(chinese.COLOURS) == set(COLOURS)


@pytest.mark.parametrize("language", list(WORDS))
def test_a_form_that_is_unknown_is_refused(language):
    with pytest.raises(ValueError, match="sung"):
        WORDS[language](Message("sung", (Group("car", "red", "small", 1),)))


def test_sentence():
    assert sentence(["zwei", "Häuser,"], "de") == "Zwei Häuser."
    assert sentence(["雪の中", "に、"], "ja") == "雪の中に。"
    assert sentence(["沙滩上，"], "zh") == "沙滩上。"


def test_languages_are_checked_and_put_in_order():
    assert check_languages(["cs", "de", "cs"]) == ("de", "cs")
    assert check_languages(TARGETS) == TARGETS
    with pytest.raises(UsageError, match="'en'"):
        check_languages(["de", "en"])
    with pytest.raises(UsageError, match="got none"):
        check_languages([])


def test_captions_of_many_scenes_name_no_unknown_words():
    """Every word of the spaced languages comes from a small vocabulary: none is glued together or left over."""
    for language in LATIN:
        seen = {
            word
            for scene in Sampler(np.random.default_rng(0), 0.3).scenes(400)
            for form in (
                ("passing" if scene.relation else "moving", "listed")
                if scene.motion
                else ("related_there" if scene.relation else "placed", "shown")
            )
            for word in WORDS[language](message(scene, form, sized=True, turned=False))
        }
        assert len(seen) < 400
        assert all(re.fullmatch(r"(?:[ldLD]')?[\w-]+,?", word) for word in seen), sorted(seen)

"""Texts of one training item: the order, what is left out, and several corpora joined."""

from hypothesis import given
from hypothesis import strategies as st

from pipeline.packing.filters import Filters
from pipeline.packing.rows import Source, captions, descriptions
from tests.pipeline.packing.corpora import caption, description, translation


def source(prefix="", **rows):
    return Source(prefix, {"item_id": "a"}, rows)


def told(rows):
    return [(row["caption_id"], row["language"], row["text"], row["origin"], row["quality"]) for row in rows]


def test_captions_then_translations_each_in_the_order_of_their_table():
    rows = source(
        captions=[caption("a", "One."), caption("a", "Zwei.", 0, "de"), caption("a", "By others.", 1, origin="mt")],
        translations=[
            translation("a#en#0", "fr", "Un.", quality=0.5),
            translation("a#en#0", "cs", "Jeden.", quality=None),
        ],
    )
    assert told(captions([rows], Filters())) == [
        ("a#en#0", "en", "One.", "human", 1.0),
        ("a#de#0", "de", "Zwei.", "human", 1.0),
        ("a#en#1", "en", "By others.", "mt", 0.0),
        ("a#en#0>fr", "fr", "Un.", "mt", 0.5),
        ("a#en#0>cs", "cs", "Jeden.", "mt", 0.0),
    ]


def test_filters_drop_translations_and_never_human_text():
    rows = source(
        captions=[caption("a", ""), caption("a", "Copied.", 1)],
        translations=[translation("a#en#0", "de", "", ["empty"]), translation("a#en#1", "de", "Copied.", copied=1.0)],
    )
    assert [row["caption_id"] for row in captions([rows], Filters())] == ["a#en#0", "a#en#1", "a#en#1>de"]
    assert [row["text"] for row in captions([rows], Filters({"de": {"copied": 0.5}}))] == ["", "Copied."]


def test_a_description_that_was_refused_and_its_translation_are_left_out():
    rows = source(
        descriptions=[description("a", "short", "A cat."), description("a", "detail", "I cannot.", ["refusal"])],
        translations=[
            translation("a#short", "de", "Eine Katze.", table="descriptions"),
            translation("a#detail", "de", "Ich kann nicht.", table="descriptions"),
            translation("a#detail", "de", "Of a caption.", table="captions"),
        ],
    )
    assert descriptions([rows]) == [{"view": "short", "text": "A cat."}]
    assert [row["text"] for row in captions([rows], Filters())] == ["Eine Katze.", "Of a caption."]


def test_captions_that_a_model_of_others_wrote_are_descriptions():
    rows = source(
        captions=[
            caption("a", "A cat.", 0),
            caption("a", "A cat sits on a mat.", 0, origin="mllm"),
            caption("a", "A mat.", 3, origin="mllm"),
            caption("a", "Une natte.", 3, "fr", "mllm"),
        ],
        descriptions=[description("a", "short", "Cat, mat.")],
    )
    assert [row["text"] for row in captions([rows], Filters())] == ["A cat."]
    assert descriptions([rows]) == [
        {"view": "short", "text": "Cat, mat."},
        {"view": "given-0", "text": "A cat sits on a mat."},
        {"view": "given-3", "text": "A mat."},
        {"view": "given-fr-3", "text": "Une natte."},
    ]


def test_a_translation_that_came_with_the_captions_gives_way_to_its_measured_row():
    rows = source(
        captions=[
            caption("a", "One."),
            caption("a", "Eins.", 0, "de", "mt"),
            caption("a", "Zwei.", 1, "de", "mt"),
            caption("a", "Un.", 0, "fr", "mt"),
        ],
        translations=[translation("a#en#0", "de", "Eins.", copied=1.0), translation("a#one", "fr", "N.", (), "x")],
    )
    assert [row["caption_id"] for row in captions([rows], Filters())][:3] == ["a#en#0", "a#de#1", "a#fr#0"]
    dropped = captions([rows], Filters({"de": {"copied": 0.5}}))
    assert "Eins." not in [row["text"] for row in dropped]


def test_flags_beside_refusal_keep_a_description():
    rows = source(descriptions=[description("a", "short", "A cat", ["cut", "fragment"])])
    assert descriptions([rows]) == [{"view": "short", "text": "A cat"}]


def test_what_another_corpus_said_before_comes_once():
    first = source(
        "own/",
        captions=[caption("a", "A cat."), caption("a", "A cat.", 1)],
        translations=[translation("a#en#0", "de", "Eine Katze."), translation("a#en#0", "fr", "Un chat.", ["copied"])],
        descriptions=[description("a", "short", "A cat."), description("a", "detail", "Grey.")],
    )
    second = source(
        "theirs/",
        captions=[caption("a", "A cat."), caption("a", "Eine Katze.", 0, "de"), caption("a", "New.", 1)],
        translations=[translation("a#en#0", "fr", "Un chat."), translation("a#en#0", "es", "Eine Katze.")],
        descriptions=[description("a", "short", "A cat."), description("a", "short", "Another word.")],
    )
    both = [first, second]
    assert [row["caption_id"] for row in captions(both, Filters())] == [
        "own/a#en#0",
        "own/a#en#1",  # within a corpus nothing is taken out
        "theirs/a#de#0",  # what a person wrote comes before the same words by a machine
        "theirs/a#en#1",
        "theirs/a#en#0>fr",  # the other one's was dropped
        "theirs/a#en#0>es",
    ]
    assert [tuple(row.values()) for row in descriptions(both)] == [
        ("short", "A cat."),
        ("detail", "Grey."),
        ("short", "Another word."),
    ]


WORDS = st.sampled_from(["x", "y", "z"])
LANGUAGE = st.sampled_from(["de", "en"])
SOURCES = st.lists(
    st.tuples(
        st.lists(st.tuples(LANGUAGE, WORDS), max_size=4),
        st.lists(st.tuples(LANGUAGE, WORDS, st.booleans()), max_size=4),
        st.lists(st.tuples(st.sampled_from(["short", "detail"]), WORDS, st.booleans()), max_size=4),
    ),
    min_size=1,
    max_size=3,
)


@given(SOURCES)
def test_nothing_is_lost_doubled_or_invented(parts):
    sources = [
        source(
            f"{number}/",
            captions=[caption("a", text, n, language) for n, (language, text) in enumerate(written)],
            translations=[
                translation(f"a#en#{n}", language, text, ["numbers"] if bad else [])
                for n, (language, text, bad) in enumerate(translated)
            ],
            descriptions=[description("a", view, text, ["refusal"] if bad else []) for view, text, bad in described],
        )
        for number, (written, translated, described) in enumerate(parts)
    ]
    made = captions(sources, Filters())
    offered = [
        [*written, *((language, text) for language, text, bad in translated if not bad)]
        for written, translated, _ in parts
    ]
    assert {(row["language"], row["text"]) for row in made} == {pair for part in offered for pair in part}
    assert len({row["caption_id"] for row in made}) == len(made)
    by_source = [
        [(row["language"], row["text"]) for row in made if row["caption_id"].startswith(f"{number}/")]
        for number in range(len(parts))
    ]
    for number, pairs in enumerate(by_source):
        for other in by_source[number + 1 :]:
            assert not set(pairs) & set(other)
        assert all(pairs.count(pair) == offered[number].count(pair) for pair in pairs)
    views = [{(view, text) for view, text, bad in described if not bad} for _, _, described in parts]
    assert {(row["view"], row["text"]) for row in descriptions(sources)} == set().union(*views)
    if len(parts) == 1:
        assert len(made) == len(offered[0])

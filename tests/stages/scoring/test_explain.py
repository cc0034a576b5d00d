"""Which queries are explained, and that what is told of them is what the score and the model say."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stages.data.batches import EvaluationData
from stages.processes import accelerated
from stages.scoring.embed import embed_split
from stages.scoring.explain import FEATURES, FRAMES, PATCHES, SHOWN, Explainer, choose, visual
from stages.scoring.report import rank_languages
from tests.model.towers import picture, processor, tiny_model
from tests.stages.corpora import write_training_corpus


def ranks_of(**languages):
    return {
        name: SimpleNamespace(ranked=SimpleNamespace(text_to_media=torch.tensor(ranks)))
        for name, ranks in languages.items()
    }


def test_languages_take_turns_and_so_do_found_and_missed():
    found = ranks_of(de=[1, 7, 1, 3, 90, 1], fr=[1, 1, 8, 2])
    assert choose(found, 4) == [("de", 2), ("fr", 2), ("de", 1), ("fr", 1)]
    assert choose(found, 2) == [("de", 2), ("fr", 2)]
    assert choose(ranks_of(de=[9, 7, 8, 6]), 2) == [("de", 1), ("de", 0)]  # none found: spread by rank


@given(st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=9), min_size=1, max_size=4), st.integers(0, 50))
def test_each_query_is_chosen_once_and_none_is_left_while_more_are_wanted(languages, count):
    found = ranks_of(**{f"l{number}": ranks for number, ranks in enumerate(languages)})
    chosen = choose(found, count)
    assert len(chosen) == len(set(chosen)) == min(count, sum(map(len, languages)))
    assert all(row < len(found[language].ranked.text_to_media) for language, row in chosen)
    by_language = [sum(name == language for language, _ in chosen) for name in found]
    assert all(n >= min(max(by_language) - 1, len(ranks)) for n, ranks in zip(by_language, languages, strict=True))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = write_training_corpus(tmp_path_factory.mktemp("explained"), 30, videos=25)  # items 21 to 24 of val
    return EvaluationData([folder], "val")


def explainer_of(data, weight=0.4, **settings):
    of = processor()
    model = tiny_model(of.vocabulary, **settings).eval()
    embedded = embed_split(model, of, data, accelerated("no"), 4)
    return Explainer(model, of, data, embedded, rank_languages(embedded, weight), weight)


@pytest.mark.parametrize("same", [False, True])
def test_results_are_in_the_order_of_the_ranks(data, same):
    """Also where the model says the same of every item, so that all tie."""
    explainer = explainer_of(data)
    if same:
        for vectors in (explainer.embedded.media_NE, explainer.embedded.slots_NKE):
            vectors[:] = vectors[:1].clone()
        explainer.found = rank_languages(explainer.embedded, 0.4)
    for language in data.texts:
        for row in range(0, 18, 5):
            found = explainer.explain(language, row)
            assert [result.rank for result in found.results] == list(range(1, SHOWN + 1))
            assert [result.right for result in found.results] == [rank == found.rank for rank in range(1, SHOWN + 1)]
            scores = [result.score for result in found.results]
            assert same or scores == sorted(scores, reverse=True)
            both = found.results[0].parts
            assert found.results[0].score == pytest.approx(0.4 * both[0] + 0.6 * both[1])
            assert found.text == data.texts[language][0][row] and found.caption_id == data.caption_ids[language][row]
            seen = [it.result for it in found.seen]
            assert seen[0].right and seen[0].rank == found.rank and len(seen) == (1 if found.rank == 1 else 2)
            assert found.rank == 1 or seen[1] is found.results[0]


def test_what_the_slots_read_is_what_the_model_attends_to(data):
    explainer = explainer_of(data)
    kinds = set()
    for row in range(18):
        seen = explainer.explain("de", row).seen[0]
        frames, views = explainer.data.items([seen.result.item])
        of = explainer.processor
        found = explainer.model.attention(of.media(frames), of.descriptions(views))
        media_KN = found.media_BHKN[0].mean(0).detach().numpy()
        kinds.add(seen.kind)
        if seen.kind == FRAMES:
            np.testing.assert_allclose(seen.media_KP, media_KN, atol=1e-6)
        else:
            np.testing.assert_allclose(seen.media_KP, media_KN[:, 1:], atol=1e-6)
            assert seen.media_KP.shape == (3, 16)
        words_KT = found.words_BHKT[0].mean(0).detach().numpy()
        for place, word in enumerate(seen.words):
            np.testing.assert_allclose(seen.words_KW[:, place], words_KT[:, list(word.tokens)].sum(1), atol=1e-6)
        read = " ".join(word.text for word in seen.words if word.view == 0)
        assert read and views[0][0].startswith(read)  # less what max_tokens cuts
        assert seen.fits_K.max() == pytest.approx(seen.result.parts[1], abs=1e-5)
        assert seen.order[0] == seen.fits_K.argmax() and sorted(seen.order) == [0, 1, 2]
    assert kinds == {FRAMES, PATCHES}


def test_without_slots_it_says_why(data):
    found = explainer_of(data, num_slots=0).explain("de", 0)
    assert found.seen == [] and "num_slots=0" in found.note and found.results[0].parts is None


def test_registers_and_the_summary_are_no_patches():
    weights_KN = np.arange(2 * 21, dtype=float).reshape(2, 21)
    kind, media_KP = visual([picture(0)], weights_KN)
    assert kind == PATCHES and np.array_equal(media_KP, weights_KN[:, 5:])
    kind, media_KP = visual(list(np.zeros((6, 4), np.float32)), weights_KN[:, :6])
    assert kind == FEATURES and media_KP.shape == (2, 6)

"""Which queries are explained, that explanations say what the score and the model say, and that the page shows them."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from model.fusion import Fusion
from model.processing import LeccrProcessor, Policy
from stages import score
from stages.data.batches import EvaluationData
from stages.processes import accelerated
from stages.scoring.embed import embed_split
from stages.scoring.explain import RESULTS, Explainer, choose_queries, split_tokens, write_page
from stages.scoring.report import rank_languages
from tests.model.towers import processor, tiny_model
from tests.stages.corpora import write_training_corpus
from tests.stages.duals import words_tokenizer, write_dual


def ranks_of(**languages):
    return {
        name: SimpleNamespace(text_items=ranks, ranked=SimpleNamespace(text_to_media=torch.tensor(ranks)))
        for name, ranks in languages.items()
    }


def test_languages_share_the_queries_and_half_of_them_are_misses():
    ranks = ranks_of(de=[1, 7, 1, 3, 90, 1], fr=[1, 1, 8, 2])
    assert choose_queries(ranks, 4) == [("de", 2), ("de", 1), ("fr", 1), ("fr", 2)]
    assert choose_queries(ranks, 2) == [("de", 2), ("fr", 2)]
    assert choose_queries(ranks_of(de=[9, 7, 8, 6]), 2) == [("de", 1), ("de", 0)]  # no hit: spread by rank


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_training_corpus(tmp_path_factory.mktemp("explained"), 30, videos=25)  # items 21 to 24 of val


@pytest.fixture(scope="module")
def data(corpus):
    return EvaluationData([corpus], "val")


def explainer_of(data, weight=0.4, fusion={}, **settings):  # noqa: B006
    of = processor()
    model = tiny_model(of.vocabulary, **settings).eval()
    embedded = embed_split(model, of, data, accelerated("no"), 4)
    fusion = Fusion(weight, **fusion)
    return Explainer(model, of, data, embedded, rank_languages(embedded.fused(fusion), weight), fusion)


@pytest.mark.parametrize("same", [False, True])
def test_results_are_in_the_order_of_the_ranks(data, same):
    """Also where the model says the same of every item, so that all tie."""
    explainer = explainer_of(data)
    if same:
        for vectors in (explainer.embedded.media_NE, explainer.embedded.slots_NKE):
            vectors[:] = vectors[:1].clone()
        explainer.ranks = rank_languages(explainer.embedded, 0.4)
    for language in data.texts:
        for row in range(0, 18, 5):
            query = explainer.explain(language, row)
            assert [result["rank"] for result in query["results"]] == list(range(1, RESULTS + 1))
            assert [result["is_right"] for result in query["results"]] == [
                rank == query["rank"] for rank in range(1, RESULTS + 1)
            ]
            scores = [result["score"] for result in query["results"]]
            assert same or scores == sorted(scores, reverse=True)
            whole, slot = query["results"][0]["similarities"]
            assert query["results"][0]["score"] == pytest.approx(0.4 * whole + 0.6 * slot)
            assert (
                query["text"] == data.texts[language][0][row] and query["caption_id"] == data.caption_ids[language][row]
            )
            read = [reading["result"] for reading in query["readings"]]
            assert (
                read[0]["is_right"]
                and read[0]["rank"] == query["rank"]
                and len(read) == (1 if query["rank"] == 1 else 2)
            )
            assert query["rank"] == 1 or read[1] is query["results"][0]


def test_readings_are_what_the_model_attends_to(data):
    explainer = explainer_of(data)
    kinds = set()
    for row in range(18):
        reading = explainer.explain("de", row)["readings"][0]
        frames, views = explainer.data.items([reading["result"]["row"]])
        _, words_BHKT, media_BHKN = explainer.model.attention(
            explainer.processor.media(frames), explainer.processor.descriptions(views)
        )
        media_KN = media_BHKN[0].mean(0).detach().numpy()
        words_KT = words_BHKT[0].mean(0).detach().numpy()
        is_video = len(frames[0]) > 1
        kinds.add(is_video)
        assert sorted(slot["number"] for slot in reading["slots"]) == [1, 2, 3]
        for slot in reading["slots"]:
            of_slot = media_KN[slot["number"] - 1] if is_video else media_KN[slot["number"] - 1, 1:]
            np.testing.assert_allclose(slot["media_weights"], of_slot, atol=1e-6)
            assert bool(slot["overlay"]) != is_video
            places = [token["place"] for token in reading["tokens"]]
            np.testing.assert_allclose(slot["token_weights"], words_KT[slot["number"] - 1, places], atol=1e-6)
        text = "".join(token["text"] for token in reading["tokens"] if token["view"] == 0).strip()
        assert text and views[0][0].startswith(text)  # less what max_tokens cuts
        similarities = [slot["similarity"] for slot in reading["slots"]]
        assert similarities == sorted(similarities, reverse=True)
        assert similarities[0] == pytest.approx(reading["result"]["similarities"][1], abs=1e-5)
    assert kinds == {True, False}


@pytest.mark.parametrize("pooling", ["mean", "max", "logsumexp"])
def test_views_are_listed_with_similarity_weight_and_trust(data, pooling, tmp_path):
    settings = {"slots": "views", "heads": "aligned", "views": ("detail", "short"), "read_start": 1.0}
    fusion = {"pooling": pooling, "view_weights": {"short": 0.0}}
    explainer = explainer_of(data, fusion=fusion, **settings)
    with torch.no_grad():
        explainer.model.reader.trust_V[1] = 0.1
    query = explainer.explain("de", 3)
    for result in query["results"]:
        assert [view["name"] for view in result["views"]] == ["detail", "short"] and not query["readings"]
        assert [view["text"] for view in result["views"]] == data.items([result["row"]])[1][0]
        assert [view["weight"] for view in result["views"]] == [1.0, 0.0]
        assert sum(view["trust"] for view in result["views"]) == pytest.approx(1)
        assert result["views"][1]["trust"] > 0.6
        whole, local = result["similarities"]
        assert local == pytest.approx(result["views"][0]["similarity"], abs=1e-6)
        assert result["score"] == pytest.approx(0.4 * whole + 0.6 * local)
    write_page(tmp_path / "page.html", explainer, 2)
    page = (tmp_path / "page.html").read_text("utf-8")
    assert query["results"][0]["views"][0]["text"] and "trust 73 %" in page and "weight 0" in page


def scored(tmp_path, model, of, corpus, *more):
    for part in (model, of):
        part.save_pretrained(tmp_path / "model")
    return page_of(tmp_path, tmp_path / "model", corpus, *more)


def page_of(tmp_path, folder, corpus, *more):
    given = ["--checkpoint", str(folder), "--data", str(corpus), "--output", str(tmp_path / "s.json")]
    assert score.main([*given, *more]) == 0
    return (tmp_path / "s-explain.html").read_text("utf-8")


def test_the_page_shows_queries_results_words_and_patches(tmp_path, data, corpus):
    of = processor()
    page = scored(tmp_path, tiny_model(of.vocabulary), of, corpus, "--explain", "5")
    assert page.count("<section>") == 5
    heading = re.search(r'<h2 lang="(\w+)" dir="auto">(.*?)</h2>', page)
    assert heading[2] in data.texts[heading[1]][0]
    assert page.count('src="data:image/jpeg;base64,') >= 25 and 'src="data:image/png;base64,' in page
    assert "<mark" in page and "--depth: 1.00" in page and "frame 2" in page
    assert not re.search(r'(?:src|href)="(?!data:)', page)  # stands by itself
    page = scored(tmp_path, tiny_model(of.vocabulary, slots="none"), of, corpus, "--explain", "1")
    assert "slots=none" in page and page.count("<section>") == 1 and "<mark" not in page


def test_a_baseline_is_explained_by_its_late_fusion(tmp_path, corpus):
    page = page_of(tmp_path, write_dual(tmp_path / "dual", "clip"), corpus, "--explain", "1000")
    assert page.count("<section>") == 54 and "<b>detail</b>" in page and "trust" not in page


def test_texts_are_escaped(tmp_path, data):
    explainer = explainer_of(data)
    explainer.data.texts["de"][0][:] = ["<b>rot</b>"] * len(explainer.data.texts["de"][0])
    write_page(tmp_path / "page.html", explainer, 1)
    page = (tmp_path / "page.html").read_text("utf-8")
    assert "&lt;b&gt;rot&lt;/b&gt;" in page and "<b>rot" not in page


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_a_transformers_tokenizer_says_where_its_tokens_are(kind):
    of = LeccrProcessor(Policy("transformers", 32, pad_to=12 if kind == "siglip" else 0), words_tokenizer(kind))
    tokens = split_tokens(of, ["red greenblue dark"], 12)
    assert [token["text"] for token in tokens] == ["red", " green", "blue", " dark"]
    assert [token["place"] for token in tokens] == list(range(kind == "clip", 4 + (kind == "clip")))

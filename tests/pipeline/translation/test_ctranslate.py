"""Decoding with CTranslate2: against Transformers' greedy search, and with a model whose answers are scripted."""

import concurrent.futures
import types

import pytest
import transformers
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.errors import UsageError
from pipeline.translation.checkpoints import convert_model
from pipeline.translation.ctranslate import (
    END,
    MAX_SOURCE_TOKENS,
    CTranslate2Engine,
    CTranslate2Translator,
    token_limit,
)
from pipeline.translation.fast_translate import EmbeddedEngine
from pipeline.translation.translator import Translated, Untranslated
from tests.pipeline.translation.tiny_checkpoints import make_m2m100, make_madlad, make_nllb

ODD_TEXTS = [
    "A boy </s> is <pad> eating <unk>.",
    ">>fra<< A boy is eating.",
    "A man is standing. " * 60,
    "x" * 1_000,
    "😀" * 2_000 + "a",
    "人在走路" * 200,
]


def load(folder, cache, compute_type="float32"):
    converted = str(convert_model(folder, cache, compute_type))
    decoding = {"beam_size": 1, "compute_type": compute_type}
    return CTranslate2Translator("model", "", "", decoding, converted).load()


def texts(results):
    assert all(isinstance(result, Translated) for result in results), results
    return [result.text for result in results]


class GreedySearch:
    """A checkpoint in Transformers."""

    def __init__(self, folder, tags=()):
        transformers.utils.logging.disable_progress_bar()
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        self.model = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
        self.model.generation_config.forced_eos_token_id = None
        self.ids = {**self.tokenizer.get_vocab(), **getattr(self.tokenizer, "lang_token_to_id", {})}
        self.not_text = {*self.tokenizer.all_special_ids, *(self.ids[tag] for tag in tags)}

    def translate(self, text, limit, tag=None):
        ids = self.tokenizer([text], return_tensors="pt")["input_ids"]
        forced = {"forced_bos_token_id": self.ids[tag]} if tag else {}
        unknown = {"suppress_tokens": [self.tokenizer.unk_token_id]}
        out = self.model.generate(ids, num_beams=1, do_sample=False, max_new_tokens=limit, **forced, **unknown)[0]
        return " ".join(self.tokenizer.decode([i for i in out.tolist() if i not in self.not_text]).split())


def test_greedy_translations_equal_those_of_transformers_and_make_sense(marian, cache, unseen):
    engine, reference = load(marian, cache), GreedySearch(marian)
    sources, targets = zip(*unseen, strict=True)
    results = engine.translate(sources, "en", "de")
    assert [reference.translate(source, 48) for source in sources[:60]] == texts(results)[:60]
    assert len(set(texts(results))) > 200 and all(result.finished for result in results)
    correct = sum(text == target for text, target in zip(texts(results), targets, strict=True))
    assert correct > 0.6 * len(unseen)


@pytest.mark.parametrize(
    ("make", "tags"),
    [
        (make_nllb, {"src": "eng_Latn", "de": "deu_Latn", "fr": "fra_Latn"}),
        (make_m2m100, {"src": "en", "de": "__de__", "fr": "__fr__"}),
        (make_madlad, {"de": "<2de>", "fr": "<2fr>"}),
    ],
)
def test_multilingual_families_decode_as_in_transformers(make, tags, tmp_path, unseen):
    folder = make(tmp_path / "model")
    engine = load(folder, tmp_path)
    reference = GreedySearch(folder, engine.tokenizer.tags)
    reference.tokenizer.src_lang = tags.get("src")
    sources = [source for source, _ in unseen[:20]]
    answers = {}
    for target in ("de", "fr"):
        rows = engine.tokenizer.encode(sources, "en", target)
        answers[target] = texts(engine._generate(rows, target, {}))
        prefix, tag = ("", tags[target]) if "src" in tags else (f"{tags[target]} ", None)
        same = 0
        for source, row, text in zip(sources, rows, answers[target], strict=True):
            same += reference.translate(prefix + source, token_limit(len(row), engine.positions), tag) == text
        assert same >= 18  # two candidates of random weights may be equal up to rounding
    assert answers["de"] != answers["fr"]
    assert not any("<" in text or "_" in text for text in answers["de"])
    with pytest.raises(UsageError, match=r"--languages: .*tlh.*(de|deu_Latn)"):
        (engine.tokenizer.encode([], "en", "tlh"), engine.tokenizer.prefix("tlh"))


def test_a_language_token_chooses_the_target(marian_of_two, cache, unseen):
    engine = load(marian_of_two, cache)
    for target, share in (("fr", 1), ("de", 0)):
        translations = texts(engine.translate([source for source, _ in unseen[:100]], "en", target))
        assert abs(sum(text.startswith(("Un ", "Une ", "L'")) for text in translations) / 100 - share) < 0.1


@pytest.fixture(scope="module")
def engines(marian, cache):
    return {"de": load(marian, cache), "pt": EmbeddedEngine("en-pt")}


@settings(max_examples=40, deadline=None)
@example(sentences=ODD_TEXTS)
@given(sentences=st.lists(st.text(st.characters(), max_size=40), max_size=5))
def test_no_text_stops_an_engine_and_results_repeat(sentences, engines):
    for target, engine in engines.items():
        results = engine.translate(sentences, "en", target)
        assert len(texts(results)) == len(sentences) and results == engine.translate(sentences, "en", target)
        for sentence, text in zip(sentences, texts(results), strict=True):
            assert not any(mark in text and mark not in sentence for mark in ("⁇", "▁", "</s>", "\ud83d"))


class WordTokenizer:
    tags = ()

    def encode(self, texts, source, target):
        return [[*text.split(), END] for text in texts]

    def prefix(self, target):
        return []

    def decode(self, rows):
        return [" ".join(token for token in row if token != END) for row in rows]


class ScriptedModel:
    """Answers `answers[text]`, or the second of a pair where repetition is forbidden, else the text in capitals."""

    def __init__(self, answers):
        self.answers, self.calls = answers, []

    def translate_batch(self, rows, *, asynchronous, max_decoding_length, repetition_penalty=None, **settings):
        careful = repetition_penalty is not None
        self.calls.append((len(rows), max_decoding_length, careful))
        return [self._answer(" ".join(row[:-1]), careful) for row in rows]

    def _answer(self, text, careful):
        answer = self.answers.get(text, Translated(text.upper()))
        answer = answer[careful] if isinstance(answer, tuple) else answer
        future = concurrent.futures.Future()
        if isinstance(answer, Untranslated):
            future.set_exception(RuntimeError(answer.message))
        else:
            future.set_result(types.SimpleNamespace(hypotheses=[answer.text.split() + [END] * answer.finished]))
        return future


def scripted(answers=None, positions=None):
    model = ScriptedModel(answers or {})
    return CTranslate2Engine(model, WordTokenizer(), positions, 1, 512), model


def test_each_sentence_has_its_translation_in_order():
    nonsense = Translated("something")  # what models make of texts without words
    engine, _ = scripted({"...": nonsense, "": nonsense})
    results = engine.translate(["a b c", "", "a", "  b\n", "...", "a b"], "en", "de")
    assert texts(results) == ["A B C", "", "A", "B", "...", "A B"]


LOOP = "ein Hund ein Hund ein Hund"


@pytest.mark.parametrize(
    ("first", "second", "result"),
    [
        (Translated(LOOP), Translated("ein Hund"), "ein Hund"),
        (Translated("ein", finished=False), Translated("ein Hund"), "ein Hund"),
        (Translated("ein", finished=False), Translated("zwei", finished=False), "ein"),
        (Translated(""), Translated("ein Hund"), "ein Hund"),
        (Untranslated("engine", "it failed"), Translated("ein Hund"), "ein Hund"),
    ],
)
def test_what_loops_or_does_not_end_is_decoded_again(first, second, result):
    engine, model = scripted({"a dog": (first, second)})
    results = engine.translate(["a dog", "a man"], "en", "de")
    assert texts(results) == [result, "A MAN"] and results[0] in (first, second)
    assert model.calls[0] == (2, 48, False) and model.calls[-1] == (1, 48, True)


def test_long_sentences_are_cut_to_what_the_model_takes():
    engine, model = scripted(positions=34)
    text = "a dog runs, " * 50
    assert engine.translate([text], "en", "de") == [Translated(text.upper().strip())]
    assert sum(rows for rows, _, _ in model.calls) > 4
    assert all(limit <= 32 for _, limit, _ in model.calls)
    (result,) = scripted()[0].translate(["w " * (MAX_SOURCE_TOKENS + 1)], "en", "de")
    assert result.text.split() == ["W"] * (MAX_SOURCE_TOKENS + 1)


def test_a_failure_concerns_only_its_sentence():
    failure = Untranslated("engine", "out of memory")
    engine, _ = scripted({"bb": failure}, positions=4)  # pieces of one word
    assert engine.translate(["a bb c d", "c"], "en", "de") == [failure, Translated("C")]

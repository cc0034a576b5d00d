"""Texts through the cache and a translator: each segment is requested once, whoever needs it."""

import asyncio
import collections
import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.engine.stage import Progress, Run
from pipeline.errors import EnvironmentTrouble
from pipeline.translation.sentences import split
from pipeline.translation.translator import Translated, TranslationService, Translator, Untranslated


class UpperBackend:
    """Translates into capitals, and refuses texts with a 7."""

    exclusive = False

    def __init__(self):
        self.requests = collections.Counter()
        self.error = self.gate = None

    def segments(self, text, language):
        return split(text, language)

    async def translate(self, segments, source, target, on_results):
        for segment in segments:
            self.requests[segment, target] += 1
            await asyncio.sleep(0)
            if self.gate:
                await self.gate.wait()
            if self.error:
                error, self.error = self.error, None
                raise error
            refused = Untranslated("http_400", "a 7") if "7" in segment else None
            on_results({segment: refused or Translated(f"{segment.upper()}→{target}")})

    async def close(self):
        pass


@dataclasses.dataclass(frozen=True)
class Upper(Translator):
    backend: UpperBackend

    def open(self, run):
        return self.backend


@pytest.fixture
def backend():
    return UpperBackend()


def run(tmp_path, work):
    async def with_service():
        service = TranslationService(Run("t", tmp_path, 1, tmp_path / "cache"), Progress())
        try:
            return await work(service)
        finally:
            await service.close()

    return asyncio.run(with_service())


def translate(service, backend, texts, target="de", name="upper", revision="1", beam_size=1, **more):
    translator = Upper(name, revision, "", {"beam_size": beam_size}, backend)
    return service.translate(translator, texts, "en", target, **more)


def test_a_text_is_its_sentences_and_each_success_is_requested_once(tmp_path, backend):
    shares = []
    texts = ["A dog. A cat.", "A cat.  A dog.", "A dog. The 7 dwarfs."]
    for _ in range(2):  # resumed, from the cache
        results = run(tmp_path, lambda service: translate(service, backend, texts, advance=shares.append))
        assert results == {
            "A dog. A cat.": Translated("A DOG.→de A CAT.→de"),
            "A cat.  A dog.": Translated("A CAT.→de  A DOG.→de"),
            "A dog. The 7 dwarfs.": Untranslated("http_400", "a 7"),
        }
    assert backend.requests == {("A dog.", "de"): 1, ("A cat.", "de"): 1, ("The 7 dwarfs.", "de"): 2}
    assert sum(shares) == pytest.approx(1 + 1 / 3)


def test_another_translator_language_or_decoding_is_another_answer(tmp_path, backend):
    async def work(service):
        for fields in ({}, {"revision": "2"}, {"name": "other"}, {"beam_size": 4}, {"target": "cs"}):
            await translate(service, backend, ["A dog."], **fields)

    run(tmp_path, work)
    assert backend.requests == {("A dog.", "de"): 4, ("A dog.", "cs"): 1}


@pytest.mark.parametrize("error", [EnvironmentTrouble("gone"), None])
def test_when_one_gives_up_the_others_request_for_themselves(tmp_path, backend, error):
    async def work(service):
        backend.gate = asyncio.Event()
        first = asyncio.create_task(translate(service, backend, ["Both."]))
        await asyncio.sleep(0.01)
        second = asyncio.create_task(translate(service, backend, ["Both.", "Mine."]))
        await asyncio.sleep(0.01)
        backend.error = error
        if not error:
            first.cancel()
        backend.gate.set()
        [outcome] = await asyncio.gather(first, return_exceptions=True)
        return outcome, await second

    outcome, results = run(tmp_path, work)
    assert isinstance(outcome, EnvironmentTrouble if error else asyncio.CancelledError)
    assert results == {"Both.": Translated("BOTH.→de"), "Mine.": Translated("MINE.→de")}


SENTENCES = st.sampled_from(["A dog.", "A cat.", "The 7.", "A dog. A cat.", "", " "])


@given(st.lists(st.lists(SENTENCES, max_size=4), max_size=4))
def test_shards_at_once_come_out_as_one_by_one(tmp_path_factory, shards):
    backend = UpperBackend()

    async def work(service):
        return await asyncio.gather(*(translate(service, backend, texts) for texts in shards))

    for texts, results in zip(shards, run(tmp_path_factory.mktemp("texts"), work), strict=True):
        assert results.keys() == set(texts)
        for text, result in results.items():
            if "7" in text:
                assert isinstance(result, Untranslated)
            else:
                assert result.text.replace("→de", "") == text.strip().upper()
    assert all(count == 1 for (segment, _), count in backend.requests.items() if "7" not in segment)

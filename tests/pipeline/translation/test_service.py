"""Texts through the cache and a translator: each segment asked for once, whoever wants it, and given to all."""

import asyncio
import collections
import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.engine.run_state import Progress
from pipeline.engine.stage import Run
from pipeline.errors import EnvironmentTrouble
from pipeline.translation import service as module
from pipeline.translation.sentences import split
from pipeline.translation.service import Texts, joined
from pipeline.translation.translator import Translated, Untranslated


@dataclasses.dataclass(frozen=True)
class Upper:
    """A translator into capitals, which refuses texts with a 7."""

    name: str = "upper"
    revision: str = "1"
    license: str = ""
    decoding: dict = dataclasses.field(default_factory=dict)


class UpperSpeaker:
    def __init__(self, alone=False):
        self.alone = alone
        self.asked = collections.Counter()
        self.at_work = self.most = 0
        self.trouble = None
        self.gate = None

    def segments(self, text, language):
        return split(text, language)

    async def translate(self, segments, source, target, made):
        self.at_work += 1
        self.most = max(self.most, self.at_work)
        try:
            for segment in segments:
                self.asked[segment, target] += 1
                await asyncio.sleep(0)
                if self.gate:
                    await self.gate.wait()
                if self.trouble:
                    trouble, self.trouble = self.trouble, None
                    raise trouble
                refused = Untranslated("http_400", "a 7") if "7" in segment else None
                made({segment: refused or Translated(f"{segment.upper()}→{target}")})
        finally:
            self.at_work -= 1

    async def close(self):
        pass


@pytest.fixture
def speaker(monkeypatch):
    made = UpperSpeaker()
    monkeypatch.setattr(module, "open_speaker", lambda translator, run: made)
    return made


def run(tmp_path, work):
    async def with_texts():
        opened = Texts(Run("t", str(tmp_path), 1, {}, str(tmp_path / "cache")), Progress(tmp_path, "translate"))
        try:
            return await work(opened)
        finally:
            await opened.close()

    return asyncio.run(with_texts())


def ask(texts, wanted, target="de", advance=lambda share: None, translator=Upper()):
    return texts.translate(translator, wanted, "en", target, advance)


def test_a_text_is_its_sentences_and_each_is_asked_for_once(tmp_path, speaker):
    shares = []
    wanted = ["A dog. A cat.", "A cat.  A dog.", "A dog."]
    found = run(tmp_path, lambda texts: ask(texts, wanted, advance=shares.append))
    assert {text: result.text for text, result in found.items()} == {
        "A dog. A cat.": "A DOG.→de A CAT.→de",
        "A cat.  A dog.": "A CAT.→de  A DOG.→de",
        "A dog.": "A DOG.→de",
    }
    assert speaker.asked == {("A dog.", "de"): 1, ("A cat.", "de"): 1}
    assert shares == [0.5, 1.0]
    assert run(tmp_path, lambda texts: ask(texts, wanted)) == found  # by another process, from the cache
    assert sum(speaker.asked.values()) == 2


def test_another_translator_language_or_decoding_is_another_answer(tmp_path, speaker):
    async def work(texts):
        for translator in (Upper(), Upper(revision="2"), Upper(name="other"), Upper(decoding={"beam_size": 4})):
            await ask(texts, ["A dog."], translator=translator)
        await ask(texts, ["A dog."], "cs")

    run(tmp_path, work)
    assert speaker.asked == {("A dog.", "de"): 4, ("A dog.", "cs"): 1}


def test_shards_at_work_at_once_share_an_answer(tmp_path, speaker):
    async def work(texts):
        return await asyncio.gather(*(ask(texts, [f"Only {n}.", "Both."]) for n in range(3)))

    found = run(tmp_path, work)
    assert all(result["Both."] == Translated("BOTH.→de") for result in found)
    assert set(speaker.asked.values()) == {1} and speaker.most == 3


@pytest.mark.parametrize("trouble", [EnvironmentTrouble("gone"), None])
def test_where_one_gives_up_the_others_ask_for_themselves(tmp_path, speaker, trouble):
    async def work(texts):
        speaker.gate = asyncio.Event()
        first = asyncio.create_task(ask(texts, ["Both."]))
        await asyncio.sleep(0.01)
        second = asyncio.create_task(ask(texts, ["Both.", "Mine."]))
        await asyncio.sleep(0.01)
        if trouble:
            speaker.trouble = trouble
        else:
            first.cancel()
        speaker.gate.set()
        [told] = await asyncio.gather(first, return_exceptions=True)
        return told, await second

    told, found = run(tmp_path, work)
    assert isinstance(told, EnvironmentTrouble if trouble else asyncio.CancelledError)
    assert found == {"Both.": Translated("BOTH.→de"), "Mine.": Translated("MINE.→de")}


@pytest.mark.parametrize(("alone", "most"), [(True, 1), (False, 4)])
def test_an_engine_of_this_process_works_alone(tmp_path, speaker, alone, most):
    speaker.alone = alone

    async def work(texts):
        await asyncio.gather(*(ask(texts, [f"Text {shard} {n}." for n in range(5)]) for shard in range(4)))

    run(tmp_path, work)
    assert speaker.most == most


def test_a_failure_is_not_kept(tmp_path, speaker):
    for _ in range(2):
        found = run(tmp_path, lambda texts: ask(texts, ["A dog. The 7 dwarfs.", "A dog."]))
        assert found["A dog. The 7 dwarfs."] == Untranslated("http_400", "a 7")
        assert found["A dog."] == Translated("A DOG.→de")
    assert speaker.asked == {("A dog.", "de"): 1, ("The 7 dwarfs.", "de"): 2}


def test_what_is_joined():
    done, cut = Translated("Eins.", notes=("b",)), Translated("Zwei", False, ("a", "b"))
    assert joined([(done, " "), (cut, "")], "de") == Translated("Eins. Zwei", False, ("a", "b"))
    assert joined([], "de") == Translated("")
    assert joined([(done, " "), (Untranslated("engine", "x"), "")], "de") == Untranslated("engine", "x")


@given(
    st.lists(
        st.lists(st.sampled_from(["A dog.", "A cat.", "The 7.", "A dog. A cat.", "", " "]), max_size=4), max_size=4
    )
)
def test_any_texts_at_once_come_out_as_one_by_one(tmp_path_factory, shards):
    speaker = UpperSpeaker()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "open_speaker", lambda translator, run: speaker)

        async def work(texts):
            return await asyncio.gather(*(ask(texts, wanted) for wanted in shards))

        found = run(tmp_path_factory.mktemp("texts"), work)
    for wanted, results in zip(shards, found, strict=True):
        assert results.keys() == set(wanted)
        for text, result in results.items():
            if "7" in text:
                assert isinstance(result, Untranslated)
            else:
                assert result.text.replace("→de", "") == text.strip().upper()
    assert all(count == 1 for (segment, _), count in speaker.asked.items() if "7" not in segment)

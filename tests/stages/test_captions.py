"""One item described: what is paid for, remembered, tried again. The speaker is scripted, all else is real."""

import asyncio
import hashlib
import json
import sqlite3

import pytest

from pipeline.captioning.captioners import MllmCaptioner
from pipeline.captioning.chat_client import RequestFailed
from pipeline.captioning.prompts import BUILT_IN, Answer
from pipeline.captioning.response_cache import ResponseCache
from pipeline.engine.stage import Progress
from stages.captions import Captions, CaptionsWorker
from stages.driver import say
from tests.conftest import make_photos

VIEWS = (BUILT_IN["short"], BUILT_IN["objects"])


class Speaker:
    """Gives the replies of `replies` by view, errors included, and counts what it was asked."""

    ahead = 4

    def __init__(self):
        self.asked = []
        self.replies = {}

    def prepare(self, stream, media_type, views):
        return [], None

    async def ask(self, prepared, view, times_s):
        self.asked.append(view.name)
        reply = self.replies.get(view.name, Answer(f"Text of {view.name}.", "stop", 7, 3))
        if isinstance(reply, Exception):
            raise reply
        return reply

    async def close(self):
        pass


@pytest.fixture
def speaker():
    return Speaker()


@pytest.fixture
def row(tmp_path):
    photo = make_photos(tmp_path / "photos", 1)[0]
    sha256 = hashlib.sha256(photo.read_bytes()).hexdigest()
    return {"item_id": photo.name, "media_type": "image", "uri": str(photo), "sha256": sha256}


@pytest.fixture
def describe(tmp_path, speaker, row):
    """describe(previous, retrying) → the outcome, by a worker of its own on one cache, as after a restart."""

    def run(previous=None, retrying=False, **changed):
        async def once():
            stage = Captions(MllmCaptioner(("http://127.0.0.1:1",), "model"), VIEWS)
            cache = ResponseCache(tmp_path / "cache")
            worker = CaptionsWorker(stage, speaker, cache, Progress())
            try:
                return await worker.item({**row, **changed}, {}, {"descriptions": previous or []}, retrying)
            finally:
                await worker.close()

        return asyncio.run(once())

    return run


def test_an_answer_is_paid_for_once(describe, speaker):
    first = describe()
    assert [row["text"] for row in first.rows["descriptions"]] == ["Text of short.", "Text of objects."]
    assert describe().rows == first.rows
    assert describe(retrying=True).rows == first.rows
    assert sorted(speaker.asked) == ["objects", "short"]


@pytest.mark.parametrize("permanent", [True, False])
def test_only_a_permanent_failure_is_remembered_until_it_is_to_be_tried_again(describe, speaker, permanent):
    speaker.replies["short"] = RequestFailed("http_400", "too long", 8, permanent)
    for _ in range(2):
        (failure,) = describe().failures
        assert (failure.kind, failure.message, failure.view, failure.attempts) == ("http_400", "too long", "short", 8)
    assert speaker.asked.count("short") == (1 if permanent else 2)
    del speaker.replies["short"]
    assert len(describe(retrying=permanent).rows["descriptions"]) == 2
    assert speaker.asked.count("objects") == 1


def test_rows_of_an_earlier_run_are_kept_only_for_the_same_content(describe, speaker):
    descriptions = describe().rows["descriptions"]
    stale = {"text": "Stale.", "sha256": "of other bytes"}
    old = [{**descriptions[0], "text": "Kept as it was."}, {**descriptions[1], **stale}]
    assert [row["text"] for row in describe(old).rows["descriptions"]] == ["Kept as it was.", "Text of objects."]


def test_an_answer_that_is_too_long_is_a_failure_and_its_text_is_not_kept(describe, speaker, tmp_path):
    speaker.replies["short"] = Answer("!" * 300_000, "length")
    for _ in range(2):
        outcome = describe()
        assert [(failure.kind, failure.view) for failure in outcome.failures] == [("malformed", "short")]
    assert speaker.asked.count("short") == 1
    assert (tmp_path / "cache" / "responses.sqlite").stat().st_size < 100_000


@pytest.mark.parametrize(
    "stored",
    [
        {"answer": {"text": None, "finish_reason": "stop", "flags": []}, "times_s": []},
        {"answer": {"text": " " * 300_000, "finish_reason": "stop", "flags": []}, "times_s": []},
        {"answer": {"text": "A cat.", "finish_reason": "stop", "flags": []}, "times_s": "soon"},
        {"answer": {"txt": "A cat."}},
        ["A cat."],
    ],
    ids=["no text", "long", "times", "fields", "list"],
)
def test_a_cached_answer_that_is_none_is_asked_for_again(describe, speaker, tmp_path, stored):
    describe()
    cache = sqlite3.connect(tmp_path / "cache" / "responses.sqlite")
    with cache:
        cache.execute("UPDATE responses SET value = ?", (json.dumps(stored),))
    assert [row["text"] for row in describe().rows["descriptions"]] == ["Text of short.", "Text of objects."]
    assert len(speaker.asked) == 4


def test_a_row_has_the_language_of_its_text(describe, speaker):
    speaker.replies["short"] = Answer("Ein grauer Kater liegt auf einer weichen Matte.", "stop")
    description = describe().rows["descriptions"][0]
    assert (description["language"], description["flags"]) == ("de", ["wrong_language"])


def test_control_characters_are_not_printed(capsys):
    say("A cat\x1b[2J \x9b31m \u202e sits.")
    assert capsys.readouterr().out == "A cat\\x1b[2J \\x9b31m \\u202e sits.\n"


def test_bytes_that_changed_since_ingest_are_not_described(describe, speaker):
    outcome = describe(sha256="0" * 64)
    assert [(failure.kind, failure.view) for failure in outcome.failures] == [("changed", view.name) for view in VIEWS]
    assert speaker.asked == []


def test_a_row_records_how_it_was_made(describe, speaker):
    speaker.replies["short"] = Answer("Sure! Here is a caption: a cat on the", "length", 7, 48)
    description = describe().rows["descriptions"][0]
    assert (description["text"], description["flags"]) == ("A cat on the", ["boilerplate", "cut", "fragment"])
    assert (description["captioner"], description["prompt_id"]) == ("model", VIEWS[0].prompt_id)
    assert (description["finish_reason"], description["completion_tokens"]) == ("length", 48)
    assert description["decoding"] == '{"max_pixels":589824,"max_tokens":48,"temperature":0.0}'

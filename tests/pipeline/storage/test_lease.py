"""One run at a time, also where a holder dies, stops or is cut off."""

import time

import pytest

from pipeline.corpus.table import write_json
from pipeline.engine.run_state import TOKEN, locked, request_stop, run_folder, run_token, stop_request
from pipeline.errors import Interrupted, UsageError
from pipeline.storage import lease
from pipeline.storage.files import location, version
from pipeline.storage.lease import held
from pipeline.storage.object_path import FileChanged, open_store
from tests.object_store import losing_answers


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    monkeypatch.setattr(lease, "RENEW_S", 0.2)
    monkeypatch.setattr(lease, "EXPIRES_S", 1.5)


def state(folder):
    path = folder / "corpus" / ".state"
    path.mkdir(parents=True, exist_ok=True)
    return path / "lock"


def test_a_second_run_is_refused_with_the_name_of_the_first(folder):
    path = state(folder)
    refused = pytest.raises(UsageError, match=r"corpus is in use by another run \(host .*, pid \d+\)")
    with held(path), refused, held(path):
        pass
    with held(path):
        pass


def test_a_dead_holder_s_lease_is_taken_over(object_store, folder, monkeypatch):
    if "s3:" not in folder.parts:
        pytest.skip("a disk's lock ends with its process")
    path, lines = state(folder), []
    monkeypatch.setattr(lease, "RENEW_S", 60)  # it does not renew its lease
    with held(path), held(path, lines.append):
        pass
    assert "held by a run on host" in lines[0]


def test_a_run_that_was_taken_over_leaves_the_other_one_alone(object_store, folder):
    corpus = folder / "corpus"
    with locked(corpus):
        token = run_token(corpus)
        write_json(run_folder(corpus) / TOKEN, "of another run")
        request_stop(corpus, Interrupted("Ctrl-C"), token)
        assert stop_request(corpus) is None
    assert run_token(corpus) == "of another run"


def test_a_write_whose_answer_is_lost_is_not_refused(object_store, tmp_path, monkeypatch):
    """The client repeats it, and the store refuses the repetition, because it has carried it out."""
    path = state(location(f"s3://corpora/{tmp_path.name}"))
    with losing_answers(object_store) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        open_store.cache_clear()
        try:
            with held(path):
                seen = version(path)
                time.sleep(0.5)
                renewed = version(path)
                assert renewed != seen
                with pytest.raises(FileChanged):
                    path.put(b"another run", seen)
            assert version(path) is None
        finally:
            open_store.cache_clear()

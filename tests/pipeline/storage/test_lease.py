"""One run at a time, also where a holder dies, stops or is cut off."""

import threading

import pytest

from pipeline.errors import UsageError
from pipeline.storage import lease
from pipeline.storage.lease import held


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
    with held(path, pytest.fail), refused, held(path, pytest.fail):
        pass
    with held(path, pytest.fail):
        pass


def test_a_dead_holder_s_lease_expires_and_one_who_returns_learns_that_it_is_lost(object_store, folder, monkeypatch):
    if "s3:" not in folder.parts:
        pytest.skip("a disk's lock ends with its process")
    path, lost, said = state(folder), threading.Event(), []
    with held(path, lost.set):
        monkeypatch.setattr(lease, "RENEW_S", 60)  # of the next holder
        path.unlink()
        with held(path, pytest.fail):  # while the first one was away
            assert lost.wait(10)
            monkeypatch.setattr(lease, "EXPIRES_S", 0.5)
            with held(path, lambda: None, said.append):  # the second one does not renew its lease
                pass
    assert "held by a run on host" in said[0]

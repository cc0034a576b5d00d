import multiprocessing

import pytest

from pipeline.cache import ResponseCache
from pipeline.errors import EnvironmentTrouble


def _fill(folder, worker):
    cache = ResponseCache(folder)
    for number in range(200):
        cache.put(f"{worker}-{number}", {"text": f"ü {worker} {number}"})
    cache.close()


def test_processes_share_it(tmp_path):
    spawn = multiprocessing.get_context("spawn")
    workers = [spawn.Process(target=_fill, args=(tmp_path, worker)) for worker in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    cache = ResponseCache(tmp_path)
    for worker in range(3):
        for number in range(200):
            assert cache.get(f"{worker}-{number}") == {"text": f"ü {worker} {number}"}
    assert cache.get("never put") is None


def test_an_answer_survives_without_close(tmp_path):
    first = ResponseCache(tmp_path)
    first.put("key", {"answer": 1})
    assert ResponseCache(tmp_path).get("key") == {"answer": 1}
    first.put("key", {"answer": 2})
    assert ResponseCache(tmp_path).get("key") == {"answer": 2}


def test_a_damaged_file_is_told_with_a_remedy(tmp_path):
    (tmp_path / "responses.sqlite").write_bytes(b"not a database at all" * 100)
    with pytest.raises(EnvironmentTrouble, match="delete the file"):
        ResponseCache(tmp_path)

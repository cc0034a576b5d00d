import multiprocessing

import pytest

from pipeline.captioning.response_cache import ResponseCache
from pipeline.errors import EnvironmentTrouble


def _fill(folder, worker):
    cache = ResponseCache(folder)
    for number in range(200):
        cache.put([(f"{worker}-{number}", {"text": f"ü {worker} {number}"})])
    cache.close()


def test_processes_share_it(tmp_path):
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        pool.starmap(_fill, [(tmp_path, worker) for worker in range(3)], chunksize=1)
    cache = ResponseCache(tmp_path)
    for worker in range(3):
        for number in range(200):
            assert cache.get(f"{worker}-{number}") == {"text": f"ü {worker} {number}"}
    assert cache.get("never put") is None


def open_new(folders, barrier, failures):
    for folder in folders:
        barrier.wait()
        try:
            ResponseCache(folder).close()
        except EnvironmentTrouble as error:
            failures.put(str(error))


def test_processes_may_begin_it_at_the_same_moment(tmp_path):
    context, folders = multiprocessing.get_context("fork"), [tmp_path / str(number) for number in range(60)]
    barrier, failures = context.Barrier(4), context.Queue()
    processes = [context.Process(target=open_new, args=(folders, barrier, failures)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert failures.empty()


def test_a_damaged_file_is_reported_with_a_remedy(tmp_path):
    (tmp_path / "responses.sqlite").write_bytes(b"not a database at all" * 100)
    with pytest.raises(EnvironmentTrouble, match="delete the file"):
        ResponseCache(tmp_path)


def test_several_answers_are_kept_together_or_not_at_all(tmp_path):
    cache = ResponseCache(tmp_path)
    cache._connection.execute("CREATE TRIGGER full BEFORE INSERT ON responses WHEN NEW.key = 'last' BEGIN "
                              "SELECT RAISE(ABORT, 'disk full'); END")  # fmt: skip
    with pytest.raises(EnvironmentTrouble, match="disk full"):
        cache.put([("first", 1), ("last", 2)])
    assert cache.get("first") is None
    cache.put([("first", 3)])
    assert ResponseCache(tmp_path).get("first") == 3

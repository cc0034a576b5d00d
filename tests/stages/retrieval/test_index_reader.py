"""What an index answers, what it refuses to open, and that it goes on answering while others write."""

import json
import os
import subprocess
import sys
import threading

import numpy as np
import pyarrow.compute as pc
import pytest

from pipeline.errors import UsageError
from stages.retrieval.index_reader import VectorIndex
from stages.retrieval.index_writer import writer
from stages.retrieval.rows import recall
from tests.conftest import ROOT
from tests.stages.indexes import ORIGIN, by_numpy, clustered, make, record, unit

E = 16
QUERIES = unit(7, E, seed=9)


def opened(folder, media_NRE, *more, **given):
    return VectorIndex.open(make(folder, media_NRE, *more, **given))


def test_by_hand(tmp_path):
    """Items a, b, c on three axes; b has a second row that looks like a. a has two texts, c has one, b none."""
    media = np.array([[[1, 0, 0], [1, 0, 0]], [[0, 1, 0], [0.8, 0.6, 0]], [[0, 0, 1], [0, 0, 1]]])
    texts, owner = np.array([[0, 1, 0], [0, 0, 1], [1, 0, 0]]), [2, 0, 0]
    index = opened(tmp_path / "i", media, texts, owner)
    scores, numbers = index.search(np.array([[1, 0, 0], [0, 0.5, 1]]), 5)
    assert numbers.tolist() == [[0, 1, 2, -1, -1], [2, 1, 0, -1, -1]]
    np.testing.assert_allclose(scores, [[1, 0.8, 0, -np.inf, -np.inf], [1, 0.5, 0, -np.inf, -np.inf]])
    scores, numbers = index.search(np.array([[1, 0, 0]]), 3, group="text")
    assert numbers.tolist() == [[0, 2, -1]] and scores.tolist() == [[1, 0, -np.inf]]
    assert index.scores(np.array([[0, 1, 1]]), [2, 1, 0], group="text").tolist() == [[1, -np.inf, 1]]
    assert index.vectors(0, group="text").tolist() == [[0, 0, 1], [1, 0, 0]]
    assert len(index) == index.span == index.width == 3 and index.dtype == "float32"


@pytest.mark.parametrize("queries", [1, 7, 40])  # FAISS multiplies otherwise from 20 on
@pytest.mark.parametrize("rows", [1, 3])
def test_flat_is_numpys_ranking(tmp_path, queries, rows):
    media = clustered(900 * rows, E).reshape(900, rows, E)
    media[300:600] = media[:300]  # ties
    asked = unit(queries, E, seed=3)
    scores, numbers = opened(tmp_path / "i", media).search(asked, 50)
    wanted_scores, wanted_numbers = by_numpy(asked, media, 50)
    np.testing.assert_array_equal(numbers, wanted_numbers)
    np.testing.assert_array_equal(scores, wanted_scores)


def test_a_collapsed_model_has_an_order_too(tmp_path):
    media = np.broadcast_to(unit(1, 1, E), (3000, 2, E))
    scores, numbers = opened(tmp_path / "i", media).search(QUERIES, 5)
    assert numbers.tolist() == [[0, 1, 2, 3, 4]] * 7 and (np.ptp(scores, axis=1) == 0).all()


def test_what_32_bits_cannot_tell_apart_64_do(tmp_path):
    """Scores that differ by less than FAISS's rounding: what it ranks first, and fetches, is not what is best."""
    media = unit(1, 1, 64) + 3e-8 * unit(2000, 1, 64, seed=1)
    _, numbers = opened(tmp_path / "i", media).search(asked := unit(3, 64, seed=2), 5)
    np.testing.assert_array_equal(numbers, by_numpy(asked, media, 5)[1])


@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_at_default_settings_enough_is_found(tmp_path, kind, dtype):
    media = clustered(6000, 32)[:, None]
    asked = clustered(100, 32, seed=5)
    index = opened(tmp_path / "i", media, kind=kind, dtype=dtype)
    wanted_scores, wanted = by_numpy(asked, media, 10)
    scores, found = index.search(asked, 10)
    assert recall(found, wanted) >= (0.85 if dtype == "int8" else 0.95)  # 32 values of 8 bits tell less than 256 do
    np.testing.assert_allclose(scores, index.scores(asked, np.arange(6000))[np.arange(100)[:, None], found], atol=1e-5)
    np.testing.assert_allclose(scores[:, 0], wanted_scores[:, 0], atol=0.02)


@pytest.mark.parametrize(("dtype", "off"), [("float16", 5e-4), ("int8", 0.01)])
def test_small_values_take_little_from_scores(tmp_path, dtype, off):
    media = clustered(500, E)[:, None]
    index = opened(tmp_path / "i", media, dtype=dtype)
    wanted = QUERIES @ media[:, 0].T
    found = index.scores(QUERIES, np.arange(500))
    assert 0 < np.abs(found - wanted).max() < off
    scores, numbers = index.search(QUERIES, 500)
    np.testing.assert_array_equal(scores, np.take_along_axis(found, numbers, 1))


@pytest.mark.parametrize("kind", ["flat", "ivf", "hnsw"])
@pytest.mark.parametrize("kept", [1, 30, 1500])
def test_filters_lose_nothing(tmp_path, kind, kept):
    """The items that are kept are the farthest ones: a search that filtered what it found would find none of them."""
    media = clustered(4000, E).reshape(2000, 2, E)
    query = media[0, :1]
    index = opened(tmp_path / "i", media, kind=kind)
    far = by_numpy(query, media, 2000)[1][0, -kept:]
    keep = np.zeros(2000, bool)
    keep[far] = True
    numbers = index.search(query, 20, keep_N=keep)[1][0]
    assert (numbers >= 0).sum() == min(20, kept) == len(set(numbers[numbers >= 0]))
    if kind == "flat" or kept <= 30:
        assert numbers[: min(20, kept)].tolist() == far[:20].tolist()
    assert keep[numbers[numbers >= 0]].all()


@pytest.mark.parametrize("kind", ["flat", "ivf", "hnsw"])
def test_more_than_there_are(tmp_path, kind):
    """All items, each once, however many rows it has."""
    media = clustered(900, E).reshape(300, 3, E)
    scores, numbers = opened(tmp_path / "i", media, kind=kind).search(QUERIES, 400)
    assert (np.sort(numbers[:, :300]) == np.arange(300)).all() and (numbers[:, 300:] == -1).all()
    assert (np.diff(scores[:, :300]) <= 0).all() and (scores[:, 300:] == -np.inf).all()


def test_an_item_with_many_rows_does_not_crowd_out_the_others(tmp_path):
    media = clustered(400, E)[:, None]
    near = np.concatenate([media[0] + 1e-3 * unit(500, E)])
    index = opened(tmp_path / "i", media, np.concatenate([near, media[:, 0]]), [7] * 500 + list(range(400)))
    numbers = index.search(media[0], 10, group="text")[1][0]
    assert set(numbers[:2]) == {0, 7} and len(set(numbers)) == 10


def test_an_empty_index_and_no_queries(tmp_path):
    with writer(tmp_path / "i", origin=ORIGIN, width=E) as made:
        made.commit()
    index = VectorIndex.open(tmp_path / "i")
    scores, numbers = index.search(QUERIES, 3)
    assert (numbers == -1).all() and (scores == -np.inf).all() and numbers.shape == (7, 3)
    assert len(index) == 0 and index.items([]) == [] and index.column("split").to_pylist() == []
    assert index.search(np.empty((0, E)), 3)[0].shape == (0, 3)
    assert opened(tmp_path / "j", unit(4, 1, E)).search(np.empty((0, E)), 3)[1].shape == (0, 3)


def test_records_and_columns(tmp_path):
    index = opened(tmp_path / "i", unit(5, 1, E))
    assert index.items([3, 1]) == [record(3), record(1)]
    keep = pc.greater(index.column("item_id"), "2.jpg").to_numpy()
    assert set(index.search(QUERIES[:1], 5, keep_N=keep)[1][0]) == {3, 4, -1}
    assert index.column("split").to_pylist() == ["test"] * 5
    assert index.origin == ORIGIN
    with pytest.raises(ValueError, match="wanted those of items that are there"):
        index.items([5])
    with pytest.raises(ValueError, match="wanted those of items that are there"):
        index.items(index.search(QUERIES[:1], 6)[1][0])


@pytest.mark.parametrize(
    ("queries", "k", "told"),
    [
        (np.full((1, E), np.nan), 3, "no finite numbers"),
        (np.full((1, E), 1e39), 3, "no finite numbers"),
        (np.zeros((1, E + 1)), 3, r"wanted \[queries, 16\]"),
        (np.zeros(E), 3, r"wanted \[queries, 16\]"),
        (np.zeros((1, E)), 0, "wanted 1 or more"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow")
def test_what_cannot_be_asked(tmp_path, queries, k, told):
    index = opened(tmp_path / "i", unit(5, 1, E))
    with pytest.raises(UsageError, match=told):
        index.search(queries, k)


def test_wrong_filters_and_groups(tmp_path):
    index = opened(tmp_path / "i", unit(5, 1, E))
    for keep in (np.ones(4, bool), np.arange(5)):
        with pytest.raises(ValueError, match="wanted bool"):
            index.search(QUERIES, 3, keep_N=keep)
    with pytest.raises(ValueError, match="wanted one of"):
        index.search(QUERIES, 3, group="words")


@pytest.mark.parametrize(
    ("expect", "told"),
    [
        ({"fingerprint": "bbbb"}, "another fingerprint: got 'aaaa', wanted 'bbbb'"),
        ({"encoder": "tiny", "corpora": {"photos": "2222"}}, r"another corpora\.photos: got '1111', wanted '2222'"),
        ({"revision": 3}, "another revision: got None, wanted 3"),
    ],
)
def test_an_index_of_something_else_is_refused(tmp_path, expect, told):
    make(tmp_path / "i", unit(5, 1, E))
    assert VectorIndex.open(tmp_path / "i", expect={"encoder": "tiny"}).origin == ORIGIN
    with pytest.raises(UsageError, match=told):
        VectorIndex.open(tmp_path / "i", expect=expect)


def test_no_index(tmp_path):
    with pytest.raises(UsageError, match="is not there"):
        VectorIndex.open(tmp_path / "none")
    with pytest.raises(UsageError, match="is not complete"):
        VectorIndex.open(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot be read"):
        VectorIndex.open(tmp_path / "file")
    (tmp_path / "manifest.json").write_text('{"table": "items"}')
    with pytest.raises(UsageError, match="is no vector index's"):
        VectorIndex.open(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(UsageError, match="cannot be read"):
        VectorIndex.open(tmp_path)


def index_files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file() and ".state" not in path.parts)


def damaged(tmp_path):
    """An index with everything that one can have: two segments, texts, something removed."""
    make(tmp_path / "i", unit(9, 2, E), unit(4, E), [1, 1, 5, 8])
    return make(tmp_path / "i", unit(3, 1, E), first=20, remove=[("photos", "2.jpg")])


def test_files_cut_short_or_gone_are_told(tmp_path):
    files = index_files(damaged(tmp_path))
    assert len(files) == 8
    for path in files:
        whole = path.read_bytes()
        path.write_bytes(whole[:-2])  # of the manifest, the last is a line's end
        with pytest.raises(UsageError, match=f"{path.name} (cannot be read|has .* bytes, its manifest says)"):
            VectorIndex.open(tmp_path / "i")
        path.unlink()
        with pytest.raises(UsageError, match=path.name):
            VectorIndex.open(tmp_path / "i")
        path.write_bytes(whole)
    VectorIndex.open(tmp_path / "i").verify()


def test_a_flipped_byte_is_found(tmp_path):
    for path in index_files(damaged(tmp_path)):
        whole = path.read_bytes()
        path.write_bytes(whole[:-7] + bytes([whole[-7] ^ 1]) + whole[-6:])
        with pytest.raises(UsageError, match=path.name):
            VectorIndex.open(tmp_path / "i").verify()
        path.write_bytes(whole)
    manifest = tmp_path / "i" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"aaaa"', '"bbbb"'))
    with pytest.raises(UsageError, match="its checksum differs"):
        VectorIndex.open(tmp_path / "i")


@pytest.mark.parametrize(
    ("name", "told"), [("media.faiss", "is no vector index of FAISS"), ("items.arrow", "cannot be read")]
)
def test_what_is_another_file_is_told(tmp_path, name, told):
    path = make(tmp_path / "i", unit(5, 1, E)) / "segment-00000001" / name
    path.write_bytes(b"x" * path.stat().st_size)
    with pytest.raises(UsageError, match=told):
        VectorIndex.open(tmp_path / "i")


FLIPPED = """
import pathlib, resource, sys
import numpy as np
from pipeline.errors import UsageError
from stages.retrieval.index_reader import VectorIndex
taken = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + (64 << 20),) * 2)  # a length may be what is damaged
for path in map(pathlib.Path, sys.argv[1:]):
    whole = path.read_bytes()
    for place in np.random.default_rng(0).choice(len(whole) - 1, 25, replace=False):
        path.unlink()
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
        try:
            with VectorIndex.open(path.parents[1]) as index:
                if path.suffix == ".arrow":
                    index.items(range(index.span))
                index.verify()
        except UsageError:
            continue
        raise SystemExit(f"byte {place} of {path}: nobody saw it")
    path.write_bytes(whole)
"""


def test_wherever_a_byte_is_flipped_opening_ends_in_peace(tmp_path):
    """Opening does not read every byte; what it does read may be wrong, and that is told, or `verify` finds it."""
    paths = []
    for kind in ("flat", "ivf", "hnsw"):
        segment = make(tmp_path / kind, clustered(300, 8)[:, None], kind=kind, dtype="int8") / "segment-00000001"
        paths += [segment / "media.faiss", segment / "items.arrow"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", FLIPPED, *paths], cwd=ROOT, env=environment, check=True)


def test_refresh_goes_on_to_what_is_published(tmp_path):
    index = opened(tmp_path / "i", unit(5, 1, E))
    before = index.search(QUERIES, 9)
    assert index.refresh() is False
    make(tmp_path / "i", unit(2, 1, E, seed=4), first=5, remove=[("photos", "0.jpg")])
    np.testing.assert_array_equal(index.search(QUERIES, 9)[1], before[1])
    pinned = index.pinned()
    assert index.refresh() is True and (len(index), len(pinned)) == (6, 5)
    assert (np.sort(index.search(QUERIES, 6)[1]) == [1, 2, 3, 4, 5, 6]).all()
    assert index.search(QUERIES, 9, keep_N=np.ones(7, bool))[1].max(1).tolist() == [6] * 7
    assert not (index.search(QUERIES, 9, keep_N=np.ones(7, bool))[1] == 0).any()
    np.testing.assert_array_equal(pinned.search(QUERIES, 9)[1], before[1])
    with pytest.raises(ValueError, match="items that are there"):
        index.items([0])


def test_refresh_refuses_another_encoder_and_answers_as_before(tmp_path):
    make(tmp_path / "i", unit(5, 1, E))
    index = VectorIndex.open(tmp_path / "i", expect={"encoder": "tiny"})
    make(tmp_path / "i", unit(5, 1, E), origin={"encoder": "large"}, overwrite=True)
    with pytest.raises(UsageError, match="another encoder"):
        index.refresh()
    assert index.origin["encoder"] == "tiny" and (index.search(QUERIES, 5)[1] >= 0).all()


def test_a_closed_index_says_so(tmp_path):
    with opened(tmp_path / "i", unit(5, 1, E)) as index:
        pass
    with pytest.raises(ValueError, match="is closed"):
        index.search(QUERIES, 5)


@pytest.mark.parametrize("kind", ["flat", "ivf", "hnsw"])
def test_readers_go_on_while_the_index_is_rebuilt(tmp_path, kind):
    """Every answer is one generation's: as many items as it had, and the best of them."""
    folder, stop, trouble, opens = tmp_path / "i", threading.Event(), [], []
    vectors = unit(60, 1, E)
    make(folder, vectors, kind=kind)

    def ask():
        try:
            held = VectorIndex.open(folder)
            while not stop.is_set():
                with VectorIndex.open(folder) as fresh:
                    for index in (held.pinned(), fresh):
                        scores, numbers = index.search(QUERIES, 100)
                        assert (numbers >= 0).sum() == 7 * len(index) and len(index) in (60, 70, 65)
                        assert len(index.items(numbers[0, :5])) == 5 and (np.diff(scores[:, :60]) <= 0).all()
                opens.append(held.refresh())
        except BaseException as error:
            trouble.append(error)
            raise

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for round_ in range(8):
        make(folder, unit(10, 1, E, seed=round_), first=60, kind=kind)
        with writer(folder, origin=ORIGIN, width=E, kind=kind) as index:
            index.remove([("photos", f"{number}.jpg") for number in range(5)])
            index.commit()
        make(folder, vectors, kind=kind, overwrite=True)
    stop.set()
    for thread in threads:
        thread.join()
    assert not trouble and any(opens)


def test_files_that_vanish_between_manifest_and_opening_are_looked_for_again(tmp_path, monkeypatch):
    """The writer publishes the next generation after the reader has read the manifest of the last."""
    from stages.retrieval import index_reader as vector_index

    make(tmp_path / "i", unit(5, 1, E))
    read, calls = vector_index.read_manifest, []

    def late(folder):
        manifest = read(folder)
        calls.append(manifest["generation"])
        if len(calls) == 1:
            make(folder, unit(6, 1, E), overwrite=True)
        return manifest

    monkeypatch.setattr(vector_index, "read_manifest", late)
    assert len(VectorIndex.open(tmp_path / "i")) == 6 and calls == [1, 2]


def test_the_manifest_names_every_file(tmp_path):
    folder = damaged(tmp_path)
    manifest = json.loads((folder / "manifest.json").read_text())
    named = {f"{segment['name']}/{name}" for segment in manifest["segments"] for name in segment["files"]}
    named |= {manifest["removed"]["name"], "manifest.json"}
    assert {str(path.relative_to(folder)) for path in index_files(folder)} == named

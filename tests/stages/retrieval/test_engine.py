import re
import runpy
import shutil
import threading

import pyarrow as pa
import pytest

from pipeline.errors import EnvironmentTrouble, UsageError
from stages import index
from stages.data.media import item_frames
from stages.data.samples import Shards, human_captions
from stages.retrieval import index_writer
from stages.retrieval.engine import Filters, Index, Query, open_picture
from stages.retrieval.facts import FACTS
from tests.conftest import ROOT
from tests.model.towers import picture
from tests.stages.corpora import row, write_rows, write_training_corpus
from tests.stages.indexed import item_rows, write_indexed, write_model


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("indexed")
    write_indexed(folder, 12, "--dtype", "float32", videos=1)
    return folder


@pytest.fixture(scope="module")
def finder(home):
    return Index.open(home / "index")


def ids(hits):
    return [hit.item_id for hit in hits]


def by_hand(finder, query, share=0.0):
    """Item ids by score, and the scores, from the space alone."""
    query_E, scores = finder.space.texts([query])[0], {}
    (photos,) = finder.corpora.values()
    shards = Shards([photos])
    for number, place in ((n, place) for n in range(len(shards)) for place in range(len(shards.shard(n)))):
        record = shards.row(number, place)
        texts = [text["text"] for text in record["descriptions"]]
        (rows_RE,) = item_rows(finder.space, [item_frames(shards, number, record)], [texts])
        nearness = (finder.space.descriptions([*texts, *human_captions(record["captions"])]) @ query_E).max()
        scores[record["item_id"]] = (1 - share) * (rows_RE @ query_E).max() + share * nearness
    return sorted(scores, key=lambda item: -scores[item]), scores


@pytest.mark.parametrize("share", [None, 0.3, 1.0])
def test_hits_are_those_of_the_model(finder, share):
    expected, scores = by_hand(finder, "a red cat", share or 0.0)
    (hits,) = finder.find(["a red cat"], 5, hybrid=share)
    assert ids(hits) == expected[:5] and [hit.rank for hit in hits] == [1, 2, 3, 4, 5]
    assert [hit.score for hit in hits] == pytest.approx([scores[item] for item in ids(hits)], abs=1e-5)


def test_a_batch_gives_what_each_query_gives(finder):
    queries = ["rot", Query(picture=picture(3)), "猫", Query("rot", picture(4), "blau")]
    for together, query in zip(finder.find(queries, 4), queries, strict=True):
        (single,) = finder.find([query], 4)
        assert ids(together) == ids(single)
        assert [hit.score for hit in together] == pytest.approx([hit.score for hit in single], abs=1e-5)
    assert finder.find([]) == []
    assert len(set(ids(finder.find(["rot"], 500)[0]))) == len(finder) == 12


def test_filters(finder):
    (clips,) = finder.find(["rot"], 12, filters=Filters(media_type="video"))
    assert [hit.media_type for hit in clips] == ["video"]
    (held_out,) = finder.find(["rot"], 12, hybrid=0.5, filters=Filters("photos", "val"))
    assert {hit.split for hit in held_out} == {"val"} and len(held_out) == 3
    assert finder.find(["rot"], filters=Filters(split="val", media_type="video")) == [[]]  # both exist, not together
    for filters, message in ((Filters(split="test"), "train, val"), (Filters(corpus="x"), "photos")):
        with pytest.raises(UsageError, match=message):
            finder.find(["rot"], filters=filters)


def test_composed_queries_excluded_words_moments_and_what_fits(tmp_path, monkeypatch):
    def lasting_9_s(items):
        return FACTS.empty_table() if not items else pa.Table.from_pylist([{"duration_s": 9.0}] * len(items), FACTS)

    monkeypatch.setattr(index_writer, "read_facts", lasting_9_s)
    finder = Index.open(write_indexed(tmp_path, 6, "--dtype", "float32", videos=1)[2])
    (hits,) = finder.find(["rot"], 6)
    query_E, other_E = finder.space.texts(["rot", "blau"])
    (clip,) = (hit for hit in hits if hit.media_type == "video")
    shards = Shards([tmp_path / "photos"])
    frames = item_frames(shards, 0, shards.row(0, 0))
    best = int((finder.space.items([[frame] for frame in frames], [[]] * 3)[0] @ query_E).argmax())
    assert clip.moment_s == (1.5, 4.5, 7.5)[best] and {hit.moment_s for hit in hits if hit is not clip} == {None}
    least = finder._now.index.manifest["fits"]
    assert [hit.fits for hit in hits] == [hit.score >= least for hit in hits]
    vectors = finder._now.index.vectors
    (picture_E,) = finder.space.pictures([[picture(3)]])
    for asked, expected_E in (
        ({"words": "rot", "exclude": "blau"}, query_E - 0.75 * other_E),
        ({"picture": picture(3)}, picture_E),
        ({"words": "rot", "picture": picture(3)}, (query_E + picture_E) / 2),
    ):
        by_item = {hit.item_id: hit for hit in finder.search(k=6, **asked)}
        for number, item_id in enumerate(finder._now.index.items["item_id"].to_pylist()):
            rows_RE = vectors.rows(slice(number, number + 1))
            assert by_item[item_id].score == pytest.approx((rows_RE @ expected_E).max(), abs=1e-5)
        assert {hit.fits for hit in by_item.values()} == {None}


def test_only_pictures_of_the_index_are_read(finder):
    for item in ("item-00003.jpg", "item-00000.mp4"):
        assert max(finder.picture("photos", item, 20).size) == 20
    for key in (("photos", "../model/config.json"), ("photos", "item-99999.jpg"), ("other", "item-00003.jpg")):
        with pytest.raises(KeyError):
            finder.picture(*key, 20)


def test_an_index_of_another_model_is_refused_and_a_model_may_move(home, tmp_path):
    other = write_model(tmp_path / "other", seed=1)
    with pytest.raises(UsageError, match="Give --checkpoint"):
        Index.open(home / "index", str(other))
    shutil.copytree(home / "model", tmp_path / "moved")
    assert Index.open(home / "index", str(tmp_path / "moved")).find(["rot"])


def test_a_corpus_may_move_and_change(tmp_path):
    _, photos, made = write_indexed(tmp_path, 6)
    moved = photos.rename(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match=r"photos is not at .* Give --data FOLDER"):
        Index.open(made)
    assert Index.open(made, data=[moved]).corpora == {"photos": moved}
    write_training_corpus(photos, 7, seed=1)
    changed = Index.open(made)
    assert len(changed.find(["rot"], 9)[0]) == 6  # as it was indexed
    with pytest.raises(KeyError):
        changed.picture("photos", "item-00001.jpg", 16)  # which is another one now


def test_refreshing_when_the_index_was_made_anew(tmp_path):
    """With the same model at another place its items are taken over; with another model it is refused."""
    model, photos, made = write_indexed(tmp_path, 4)
    finder = Index.open(made)
    before = finder.find(["rot"], 4)
    moved = shutil.copytree(model, tmp_path / "moved")
    index.main(["--checkpoint", str(moved), "--data", str(photos), "--output", str(made), "--overwrite"])
    assert finder.refresh() and finder.find(["rot"], 9) == before
    other = write_model(tmp_path / "other", seed=1)
    index.main(["--checkpoint", str(other), "--data", str(photos), "--output", str(made), "--overwrite"])
    for _ in range(2):
        with pytest.raises(UsageError, match="another model"):
            finder.refresh()
        assert finder.find(["rot"], 4) == before


def test_an_added_corpus_is_found_after_a_refresh_and_one_that_was_left_out_is_not(tmp_path):
    model, photos, made = write_indexed(tmp_path, 3)
    finder = Index.open(made)
    more = write_training_corpus(tmp_path / "more", 2, seed=1)
    again = ["--checkpoint", str(model), "--data", str(photos), "--data", str(more), "--output", str(made)]
    index.main(again)
    assert set(finder.corpora) == {"photos"}
    assert finder.refresh() and set(finder.corpora) == {"photos", "more"} and len(finder) == 5
    assert finder.picture("more", "item-00001.jpg", 16).size == (16, 16)
    assert len(finder.find(["rot"], 5, filters=Filters("more"))[0]) == 2
    write_training_corpus(more, 4, seed=1)  # packed anew, and not indexed yet
    index.main(again)
    assert finder.refresh() and len(finder) == 7
    index.main(["--data", str(photos), "--output", str(made)])
    assert finder.refresh() and len(finder) == len(finder.find(["rot"], 9)[0]) == 3
    with pytest.raises(KeyError):
        finder.picture("more", "item-00001.jpg", 16)


def test_queries_during_updates_see_one_generation_each(tmp_path):
    model, photos, made = write_indexed(tmp_path, 8)
    finder, ended, counts, failures = Index.open(made), threading.Event(), set(), []

    def ask():
        while not ended.is_set():
            try:
                finder.refresh()
                counts.add(len(finder.find(["rot"], 50)[0]))
            except EnvironmentTrouble:
                continue
            except Exception as error:
                failures.append(error)
                return

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for count in (9, 5, 8):
        write_rows(photos, [row(number, "train") for number in range(count)])
        index.main(["--checkpoint", str(model), "--data", str(photos), "--output", str(made)])
    ended.set()
    for thread in threads:
        thread.join()
    assert not failures and counts <= {8, 9, 5}


def test_the_python_of_the_readme_runs(home, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "PHOTOS").symlink_to(home / "index")
    code = re.search(r"```python\n(from leccr import .*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    (tmp_path / "snippet.py").write_text(code[1], "utf-8")
    names = runpy.run_path(str(tmp_path / "snippet.py"))
    assert len(capsys.readouterr().out.splitlines()) == 5 and (tmp_path / "found.jpg").exists()
    opened, hit = names["index"], names["hit"]
    hits = opened.search("rot", 6)
    assert opened.search("rot", 3, offset=3) == hits[3:]
    assert [hit.score >= hits[2].score for hit in opened.search("rot", 6, min_score=hits[2].score)][2:] == [True]
    found = Query(picture=open_picture((tmp_path / "found.jpg").read_bytes()))
    assert opened.search(picture=tmp_path / "found.jpg") == opened.find([found])[0]
    alike = opened.similar(hit.corpus, hit.item_id, 99)
    assert len(alike) == len(opened) - 1 and hit.item_id not in ids(alike)
    assert [other.score for other in alike] == sorted((other.score for other in alike), reverse=True)
    assert opened.facets["media_type"] == {"image": 11, "video": 1}

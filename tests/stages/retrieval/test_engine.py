import io
import shutil
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.errors import EnvironmentTrouble, UsageError
from stages import index
from stages.data.batches import EvaluationData
from stages.retrieval.engine import Hit, open_finder, open_picture
from stages.retrieval.index_reader import VectorIndex
from tests.model.towers import picture
from tests.stages.corpora import row, write_rows, write_training_corpus
from tests.stages.indexed import write_indexed, write_model


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("indexed")
    write_indexed(folder, 12, "--dtype", "float32", videos=1)
    return folder


@pytest.fixture(scope="module")
def finder(home):
    return open_finder(home / "index")


def by_hand(finder, query, share=0.0):
    """Item ids by score, from the space alone."""
    data = EvaluationData([finder.corpora["photos"]], "train"), EvaluationData([finder.corpora["photos"]], "val")
    scores = {}
    query_E = finder.space.texts([query])[0]
    for part in data:
        frames, told = part.items(range(len(part.item_names)))
        rows_NRE = finder.space.items(frames, told, 2)
        for item, rows_RE, texts in zip(part.item_names, rows_NRE, told, strict=True):
            nearness = (finder.space.descriptions(texts) @ query_E).max()
            scores[item] = (1 - share) * (rows_RE @ query_E).max() + share * nearness
    return sorted(scores, key=lambda item: -scores[item]), scores


@pytest.mark.parametrize("share", [None, 0.3, 1.0])
def test_hits_are_those_of_the_model(finder, share):
    wanted, scores = by_hand(finder, "a red cat", share or 0.0)
    (hits,) = finder.find(["a red cat"], 5, hybrid=share)
    assert [hit.item_id for hit in hits] == wanted[:5] and [hit.rank for hit in hits] == [1, 2, 3, 4, 5]
    for hit in hits:
        assert hit.score == pytest.approx(scores[hit.item_id], abs=1e-5)


def test_a_hit_tells_its_nearest_description(finder):
    (hits,) = finder.find(["blau"], 3)
    data = finder._now.index.items([0])[0]
    assert isinstance(hits[0], Hit) and hits[0].corpus == "photos" and {hit.view for hit in hits} <= {"short", "detail"}
    for hit in hits:
        record = next(it for it in finder._now.index.items(range(12)) if it["item_id"] == hit.item_id)
        near = {told["view"]: finder.space.descriptions([told["text"]])[0] for told in record["texts"]}
        best = max(near, key=lambda view: near[view] @ finder.space.texts(["blau"])[0])
        assert hit.view == best and hit.text == next(x["text"] for x in record["texts"] if x["view"] == best)
    assert data["texts"]


def test_a_batch_gives_what_each_query_gives(finder):
    queries = ["rot", picture(3), "猫", picture(4)]
    for together, query in zip(finder.find(queries, 4), queries, strict=True):
        (alone,) = finder.find([query], 4)
        assert [hit.item_id for hit in together] == [hit.item_id for hit in alone]
        assert [hit.score for hit in together] == pytest.approx([hit.score for hit in alone], abs=1e-5)
    assert finder.find([]) == []


def test_more_results_than_items(finder):
    (hits,) = finder.find(["rot"], 500)
    assert len(hits) == len({hit.item_id for hit in hits}) == len(finder) == 12


def test_filters(finder):
    (clips,) = finder.find(["rot"], 12, media_type="video")
    assert [hit.media_type for hit in clips] == ["video"]
    (held_out,) = finder.find(["rot"], 12, split="val", corpus="photos", hybrid=0.5)
    assert {hit.split for hit in held_out} == {"val"} and len(held_out) == 3
    assert finder.find(["rot"], split="val", media_type="video") == [[]]  # there are both, but not at once
    for wrong, told in (
        ({"split": "test"}, "split: got 'test', the index has train, val"),
        ({"corpus": "x"}, "photos"),
    ):
        with pytest.raises(UsageError, match=told):
            finder.find(["rot"], **wrong)


@pytest.mark.parametrize(
    ("query", "k", "hybrid", "told"),
    [
        ("", 3, None, "empty query"),
        (" \n\t", 3, None, "empty query"),
        ("a" * 10_000, 3, None, "got a query of 10,000 characters, wanted at most 2,000"),
        ("a", 0, None, "-k: got 0"),
        ("a", 3, 1.5, "--hybrid: got 1.5"),
    ],
)
def test_what_cannot_be_answered(finder, query, k, hybrid, told):
    with pytest.raises(UsageError, match=told):
        finder.find([query], k, hybrid=hybrid)


@settings(max_examples=40, deadline=None)
@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=300).filter(str.strip))
def test_any_text_finds_something(finder, query):
    """Right to left, emoji, control characters."""
    (hits,) = finder.find([query], 3)
    assert len(hits) == 3 and all(np.isfinite(hit.score) for hit in hits)


def test_pictures_of_the_index_and_of_nothing_else(finder):
    for item in ("item-00003.jpg", "item-00000.mp4"):
        assert max(finder.picture(("photos", item), 20).size) == 20
    for key in (("photos", "../model/config.json"), ("photos", "item-99999.jpg"), ("other", "item-00003.jpg")):
        with pytest.raises(KeyError):
            finder.picture(key, 20)


def test_a_picture_query_from_bytes():
    stream = io.BytesIO()
    Image.new("RGB", (3000, 2000), "red").save(stream, "PNG")
    assert open_picture(stream.getvalue(), "it").size[0] < 1300
    with pytest.raises(UsageError, match=r"^it: .*wanted a picture"):
        open_picture(b"no picture", "it")


def test_an_index_of_another_model_is_refused(home, tmp_path):
    other = write_model(tmp_path / "other", seed=1)
    with pytest.raises(UsageError, match="give the checkpoint that it was made with"):
        open_finder(home / "index", str(other))
    shutil.copytree(home / "model", tmp_path / "moved")
    assert open_finder(home / "index", str(tmp_path / "moved")).find(["rot"])


def test_a_corpus_that_moved_or_changed(tmp_path):
    _, photos, made = write_indexed(tmp_path, 6)
    moved = photos.rename(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match=r"its corpus photos is not at .*: give --data FOLDER, where it is now"):
        open_finder(made)
    assert open_finder(made, data=[moved]).corpora == {"photos": moved}
    write_training_corpus(photos, 7)
    with pytest.raises(UsageError, match=r"has changed since it was indexed: run index\.py again"):
        open_finder(made)


def test_an_index_made_again_with_another_model_is_not_gone_on_with(tmp_path):
    _, photos, made = write_indexed(tmp_path, 4)
    finder = open_finder(made)
    before = finder.find(["rot"], 4)
    other = write_model(tmp_path / "other", seed=1)
    index.main(["--checkpoint", str(other), "--data", str(photos), "--output", str(made), "--overwrite"])
    for _ in range(2):
        with pytest.raises(UsageError, match="was made from another space"):
            finder.refresh()
        assert finder.find(["rot"], 4) == before


def test_the_same_model_at_another_place_is_the_same(tmp_path):
    model, photos, made = write_indexed(tmp_path, 4)
    finder = open_finder(made)
    moved = shutil.copytree(model, tmp_path / "moved")
    index.main(["--checkpoint", str(moved), "--data", str(photos), "--output", str(made), "--overwrite"])
    assert finder.refresh() and len(finder.find(["rot"], 9)[0]) == 4


def test_while_the_index_is_away_answers_go_on(tmp_path):
    _, _, made = write_indexed(tmp_path, 4)
    finder = open_finder(made)
    before = finder.find(["rot"], 4)
    made.rename(tmp_path / "away")
    with pytest.raises(EnvironmentTrouble, match="is not there"):
        finder.refresh()
    assert finder.find(["rot"], 4) == before
    (tmp_path / "away").rename(made)
    assert finder.refresh() is False


def test_what_removed_items_alone_have_is_no_filter(tmp_path):
    _, _, made = write_indexed(tmp_path, 6)
    index.main(["--output", str(made), "--remove", "photos/item-00005.jpg"])  # the one of val
    finder = open_finder(made)
    assert finder.splits == ["train"]
    with pytest.raises(UsageError, match=r"got 'val', the index has train$"):
        finder.find(["rot"], 3, split="val")


def test_a_corpus_that_is_added_is_found_and_shown_after_a_refresh(tmp_path):
    model, photos, made = write_indexed(tmp_path, 3)
    finder = open_finder(made)
    more = write_training_corpus(tmp_path / "more", 2, seed=1)
    index.main(["--checkpoint", str(model), "--data", str(photos), "--data", str(more), "--output", str(made)])
    assert set(finder.corpora) == {"photos"}
    assert finder.refresh() and set(finder.corpora) == {"photos", "more"} and len(finder) == 5
    assert finder.picture(("more", "item-00001.jpg"), 16).size == (16, 16)
    (hits,) = finder.find(["rot"], 5, corpus="more")
    assert len(hits) == 2
    index.main(["--output", str(made), "--remove", "photos/item-00000.jpg"])
    write_training_corpus(more, 4, seed=1)  # packed anew, and not indexed yet: the old answers
    assert not finder.refresh() and len(finder) == len(finder.find(["rot"], 9)[0]) == 5
    index.main(["--checkpoint", str(model), "--data", str(photos), "--data", str(more), "--output", str(made)])
    assert finder.refresh() and len(finder) == 7
    index.main(["--output", str(made), "--remove", "more/item-00001.jpg"])
    assert finder.refresh()
    with pytest.raises(KeyError):
        finder.picture(("more", "item-00001.jpg"), 16)  # the corpus has it, the index no longer


@pytest.mark.parametrize("more", [(), ("--overwrite",)])
def test_queries_while_the_index_is_made_anew(tmp_path, more):
    """Old answers or new ones, never an error, and nothing in between."""
    model, photos, made = write_indexed(tmp_path, 8)
    finder, ended, seen, failed = open_finder(made), threading.Event(), set(), []

    def ask():
        while not ended.is_set():
            try:
                finder.refresh()
                seen.add(len(finder.find(["rot"], 50)[0]))
            except Exception as error:
                failed.append(error)
                return

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for count in (9, 5, 8):
        write_rows(photos, [row(number, "train") for number in range(count)])
        index.main(["--checkpoint", str(model), "--data", str(photos), "--output", str(made), *more])
    ended.set()
    for thread in threads:
        thread.join()
    assert not failed and seen <= {8, 9, 5} and len(VectorIndex.open(made)) == 8

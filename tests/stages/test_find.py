"""A folder of pictures becomes searchable in one command, and stays so when it changes."""

import json

import pytest

import leccr
from pipeline.errors import Interrupted, UsageError
from stages import find, pack
from stages.retrieval.collection import Collection
from tests.conftest import make_photos
from tests.loopback import Loopback
from tests.stages.indexed import write_model


@pytest.fixture(autouse=True)
def data_home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path / "data"


def test_a_folder_is_described_once_and_then_followed(tmp_path, data_home, monkeypatch, capsys):
    photos, model = tmp_path / "photos", write_model(tmp_path / "model")
    make_photos(photos, 4)
    collection = Collection.of(photos)
    with Loopback() as server:
        options = ["--checkpoint", str(model), "--mllm-url", server.url]

        def search(*more):
            assert find.main([str(photos), "--json", "-k", "9", "rot", *options, *more]) == 0
            return {hit["item_id"]: hit for hit in json.loads(capsys.readouterr().out)["hits"]}

        def interrupt(*_):
            raise Interrupted("ended by SIGINT")

        with monkeypatch.context() as patch, pytest.raises(Interrupted):
            patch.setattr(pack, "main", interrupt)
            search()
        (photos / "photo-00000.jpg").unlink()  # before the run is resumed
        hits = search()
        assert sorted(hits) == ["photo-00001.jpg", "photo-00002.jpg", "photo-00003.jpg"]
        assert hits["photo-00001.jpg"]["uri"] == str(photos / "photo-00001.jpg")
        answered = server.stats()["answered"]
        assert answered == 4 * 5  # pictures and views; none is paid for twice
        index = (collection.index / "manifest.json").read_bytes()
        search()
        assert (collection.index / "manifest.json").read_bytes() == index
        make_photos(photos, 1)
        (photos / "photo-00003.jpg").rename(photos / "other.jpg")
        assert sorted(search()) == ["other.jpg", "photo-00000.jpg", "photo-00001.jpg", "photo-00002.jpg"]
        (photos / "photo-00001.jpg").unlink()
        assert leccr.main(["update", str(photos)]) == 0
        capsys.readouterr()
        answered = server.stats()["answered"]
        old, photos = photos, photos.rename(tmp_path / "moved")
        with pytest.raises(UsageError, match="nothing"):
            search("--moved-from", str(tmp_path / "elsewhere"))
        hits = search("--moved-from", str(old))
        assert {hit["uri"] for hit in hits.values()} == set(map(str, photos.iterdir()))
        assert server.stats()["answered"] == answered and not collection.corpus.exists()
        collection = Collection.of(photos)
        assert leccr.main(["verify", str(photos)]) == 0
        capsys.readouterr()
        assert find.main([str(photos), "--json"]) == 0
        state = json.loads(capsys.readouterr().out)
        assert state["items"] == 3 and state["encoder"] == str(model)
        assert state["index"] == str(collection.index) and collection.index.is_relative_to(data_home)


def test_another_run_holds_up_no_search(tmp_path, monkeypatch, capsys):
    from pipeline.engine.run_state import locked

    photos, model = tmp_path / "photos", write_model(tmp_path / "model")
    make_photos(photos, 2)
    with Loopback() as server:
        command = [str(photos), "rot", "--checkpoint", str(model), "--mllm-url", server.url]
        assert find.main(command) == 0
        (photos / "photo-00001.jpg").unlink()
        with locked(Collection.of(photos).corpus):
            capsys.readouterr()
            assert find.main(command) == 0
            printed = capsys.readouterr()
            assert "photo-00001.jpg" in printed.out and "in use by another run" in printed.err


@pytest.mark.parametrize("mistake", ["no such folder", "a file", "empty", "only texts", "an empty query"])
def test_a_mistake_makes_nothing(mistake, tmp_path, data_home):
    folder, query = tmp_path / "photos", "eine Katze"
    if mistake == "a file":
        folder.write_text("")
    elif mistake != "no such folder":
        folder.mkdir()
    if mistake == "only texts":
        (folder / "notes.txt").write_text("text")
    if mistake == "an empty query":
        make_photos(folder, 1)
        query = " "
    messages = {"an empty query": "letter", "empty": "no images", "only texts": "no images"}
    with pytest.raises(UsageError, match=messages.get(mistake, "is not a folder")):
        find.main([str(folder), query])
    assert not data_home.exists()

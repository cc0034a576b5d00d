"""The table `vectors`: what is in it, what is encoded again, and what other programs read."""

import duckdb
import numpy as np
import polars
import pytest

import beam_runner
from pipeline.corpus.table import Table, vectors_of
from stages import embed as embed_module
from stages import index
from stages.data.media import item_frames
from stages.data.samples import Shards, human_captions
from stages.embed import Embed
from stages.retrieval.encoders import Space
from stages.verify import verify
from tests.stages.corpora import row, write_rows, write_training_corpus
from tests.stages.indexed import write_model

ITEMS, VIEWS = 6, 2


def embed(corpus, *arguments):
    return beam_runner.run(["--stage", "embed", "--output", str(corpus), *map(str, arguments)])


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("embed")
    write_training_corpus(folder / "photos", ITEMS)
    write_model(folder / "model")
    assert embed(folder / "photos", "--checkpoint", folder / "model") == 0
    return folder


@pytest.fixture
def encoded(monkeypatch):
    """Noted while a test runs: how many items, and how many texts, the model encodes."""
    counts, items, descriptions = {"items": 0, "texts": 0}, Space.items, Space.descriptions

    def noting_items(space, frames, texts):
        counts["items"] += len(frames)
        return items(space, frames, texts)

    def noting_texts(space, texts):
        counts["texts"] += len(texts)
        return descriptions(space, texts)

    monkeypatch.setattr(Space, "items", noting_items)
    monkeypatch.setattr(Space, "descriptions", noting_texts)
    return counts


def test_rows_are_what_the_model_makes_of_each_item(home):
    space, table, shards = Space(str(home / "model")), Table(home / "photos", "vectors"), Shards([home / "photos"])
    for number in range(2):
        rows, vectors_RE = table.shard(number).drop_columns("vector").to_pylist(), vectors_of(table.shard(number))
        items = [shards.row(number, place) for place in range(len(shards.shard(number)))]
        texts = [[text["text"] for text in item["descriptions"]] for item in items]
        items_NE, slots_NKE = space.items([item_frames(shards, number, item) for item in items], texts)
        captions = [list(human_captions(item["captions"])) for item in items]
        text_ME = space.descriptions([text for both in zip(texts, captions) for of in both for text in of])  # noqa: B905
        for place, item in enumerate(items):
            own = [n for n, of in enumerate(rows) if of["item_id"] == item["item_id"]]
            names = [*(("slot", str(k)) for k in range(slots_NKE.shape[1])), ("view", "short"), ("view", "detail")]
            names += [("caption", caption["language"]) for caption in item["captions"] if caption["origin"] == "human"]
            assert [(rows[n]["part"], rows[n]["view"]) for n in own] == [("item", ""), *names]
            count = len(texts[place]) + len(captions[place])
            expected = [items_NE[place, None], slots_NKE[place], text_ME[:count]]
            np.testing.assert_allclose(vectors_RE[own], np.concatenate(expected), atol=1e-5)
            text_ME = text_ME[count:]
    assert {of["model"] for of in table.rows()} == {table.manifest["settings"]["model"]} == {space.model}
    assert verify(home / "photos")[1] == []


def test_other_programs_read_it(home):
    shards = sorted((home / "photos").glob("vectors/*.arrow"))
    vectors = polars.concat([polars.read_ipc_stream(shard) for shard in shards])
    items = vectors.filter(part="item")
    assert items["vector"].to_numpy().shape == (ITEMS, Space(str(home / "model")).width)
    connection = duckdb.connect()
    connection.register("items", items.to_arrow())
    nearest = "arg_max(b.item_id, array_inner_product(a.vector, b.vector))"
    pairs = connection.sql(f"select a.item_id, {nearest} from items a, items b group by 1").fetchall()
    assert len(pairs) == ITEMS and all(item == other for item, other in pairs)


def test_only_what_changed_is_encoded_again(home, tmp_path, encoded):
    photos = write_training_corpus(tmp_path / "photos", ITEMS)
    assert embed(photos, "--checkpoint", home / "model") == 0
    assert encoded == {"items": ITEMS, "texts": ITEMS * VIEWS + 16}
    before = {path.name: path.read_bytes() for path in (photos / "vectors").iterdir()}
    (photos / "vectors" / "part-00001-of-00002.arrow").unlink()  # as after a kill
    (photos / "vectors" / "manifest.json").unlink()
    assert embed(photos, "--checkpoint", home / "model") == 0
    assert encoded == {"items": ITEMS * 1.5, "texts": ITEMS * VIEWS * 1.5 + 26}
    assert {path.name: path.read_bytes() for path in (photos / "vectors").iterdir()} == before
    encoded.update(items=0, texts=0)
    rows = [row(number, "train") for number in (0, 1, 2, 3, 8)]
    rows[1]["descriptions"][0]["text"] = "something else"
    rows[2] |= {"uri": "/elsewhere/2.jpg", "split": "test"}
    rows[3] |= {"item_id": "renamed.jpg"}
    write_rows(photos, rows)
    assert embed(photos, "--checkpoint", home / "model") == 0
    assert encoded == {"items": 2, "texts": 5}  # 1 and 8
    assert {of["item_id"] for of in Table(photos, "vectors").rows()} == {of["item_id"] for of in rows}


def test_a_table_of_before_captions_were_encoded_is_completed(home, tmp_path, encoded, monkeypatch):
    photos, settings = write_training_corpus(tmp_path / "photos", ITEMS), Embed.settings
    with monkeypatch.context() as patch:
        patch.setattr(Embed, "settings", lambda stage: {n: v for n, v in settings(stage).items() if n != "parts"})
        patch.setattr(embed_module, "human_captions", lambda captions: {})
        assert embed(photos, "--checkpoint", home / "model") == 0
    encoded.update(items=0, texts=0)
    assert index.main(["--data", str(photos), "--output", str(tmp_path / "index")]) == 0
    assert encoded == {"items": 0, "texts": 16}
    assert sum(of["part"] == "caption" for of in Table(photos, "vectors").rows()) == 16


def test_media_that_cannot_be_read_fail_alone(home, tmp_path):
    rows = [row(number, "train") for number in range(3)]
    rows[1]["media"] = rows[1]["media"][:200]
    photos = write_rows(tmp_path / "photos", rows)
    assert embed(photos, "--checkpoint", home / "model") == 0
    table = Table(photos, "vectors")
    assert {of["item_id"] for of in table.rows()} == {rows[0]["item_id"], rows[2]["item_id"]}
    assert [failure["id"] for failure in table.failures()] == [rows[1]["item_id"]]


def test_another_model_and_a_diverged_one_are_refused(home, tmp_path, capsys, monkeypatch):
    photos, other = write_training_corpus(tmp_path / "photos", 3), write_model(tmp_path / "other", seed=1)
    assert embed(tmp_path / "none", "--checkpoint", other) == 2 and not (tmp_path / "none").exists()
    assert embed(photos, "--checkpoint", home / "model") == 0
    assert embed(photos, "--checkpoint", other) == 2 and "model was" in capsys.readouterr().err
    assert embed(photos, "--checkpoint", other, "--overwrite") == 0
    items = Space.items
    monkeypatch.setattr(Space, "items", lambda *given: [vectors * np.nan for vectors in items(*given)])
    assert embed(photos, "--checkpoint", home / "model", "--overwrite") == 2
    assert "diverged" in capsys.readouterr().err and not (photos / "vectors" / "manifest.json").exists()

"""An export is read by what people read data sets with, names no place of this machine, and is uploaded resumably."""

import collections
import io
import json
import re
import signal
import subprocess
import sys
import time

import datasets
import duckdb
import pandas
import polars
import pyarrow.parquet as pq
import pytest
from huggingface_hub import constants
from PIL import Image

from pipeline.card.croissant import CROISSANT
from pipeline.card.markdown import public_id
from tests.conftest import clean_environment, command, make_photos, run_stage
from tests.corpora import caption, deal_corpus, description, item, small_corpus, write_table
from tests.http_servers import serving
from tests.hub import Hub
from tests.stages.corpora import write_feature_corpus

SPLITS = {"train": {f"photo-0000{n}.jpg" for n in range(3)}, "test": {"photo-00004.jpg"}}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Photographs in three shards, the first of them with the place where it was taken, and all tables."""
    folder = tmp_path_factory.mktemp("export")
    photos = make_photos(folder / "photos", 5)
    with Image.open(photos[0]) as photo:
        exif = photo.getexif()
        exif[0x010F], exif.get_ifd(0x8825)[1] = "Secret camera", "N"
        photo.save(photos[0], exif=exif)
    corpus = small_corpus(folder / "corpus", photos)
    assert run_stage("--stage", "pack", "--output", corpus).returncode == 0
    return corpus


def export(corpus, folder, *more, status=0):
    done = run_stage("--stage", "export", "--output", corpus, "--format", "parquet", "--to", folder, *more)
    assert done.returncode == status, done.stderr
    return done


@pytest.fixture(scope="module")
def exported(corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "photos"
    export(corpus, folder)
    return folder


def test_it_is_read_in_a_line(exported, tmp_path):
    rows = datasets.load_dataset(str(exported), "training", cache_dir=str(tmp_path))
    assert {split: set(rows[split]["item_id"]) for split in rows} == SPLITS
    assert rows["test"][0]["media"].size == (48, 40)
    descriptions = datasets.load_dataset(str(exported), "descriptions", split="train", cache_dir=str(tmp_path))
    texts = sorted(descriptions["text"])
    assert sorted(polars.read_parquet(f"{exported}/descriptions/*.parquet")["text"]) == texts
    assert sorted(pandas.read_parquet(exported / "descriptions")["text"]) == texts
    assert (
        sorted(text for (text,) in duckdb.sql(f"select text from '{exported}/descriptions/*.parquet'").fetchall())
        == texts
    )
    assert datasets.load_dataset(str(exported), cache_dir=str(tmp_path))["train"].num_rows == 3  # the default


def test_it_names_no_place_and_no_camera(corpus, exported):
    tables = {path: pq.read_table(path) for path in exported.rglob("*.parquet")}
    text = str([table.to_pylist() for table in tables.values()]) + "".join(str(t.schema) for t in tables.values())
    text += (exported / "README.md").read_text() + (exported / CROISSANT).read_text()
    assert "photo-00000.jpg" in text and str(corpus.parent) not in text and "/home" not in text
    for row in (row for path in exported.glob("training/*") for row in pq.read_table(path).to_pylist()):
        data = row["media"]["bytes"]
        assert not Image.open(io.BytesIO(data)).getexif() and b"Secret" not in data


@pytest.mark.parametrize(
    ("item_id", "public"),
    [
        ("holidays/a.jpg", "holidays/a.jpg"),
        ("https://web.org/a.jpg", "https://web.org/a.jpg"),
        ("/home/me/a b/c.jpg", "HASH/c.jpg"),
        ("one//home/me/a b/c.jpg", "one/HASH/c.jpg"),
        ("s3://bucket/c.jpg", "HASH/c.jpg"),
    ],
)
def test_absolute_paths_among_ids(item_id, public):
    assert re.sub("[0-9a-f]{8}", "HASH", public_id(item_id)) == public


def test_ids_and_addresses_are_the_same_in_all_tables(tmp_path):
    first, second = item("/home/a.jpg", "/home/a.jpg"), item("https://me:key@web.org/b.jpg?key=1#x", "b.jpg", "a-b")
    deal_corpus(
        tmp_path / "corpus",
        items=[first, second],
        captions=[caption("/home/a.jpg", "A.")],
        descriptions=[description("/home/a.jpg", "A.", captioner="/models/me/captioner")],
    )
    export(tmp_path / "corpus", tmp_path / "out")
    items, captions, descriptions = (
        polars.read_parquet(f"{tmp_path}/out/{name}/*.parquet") for name in ("items", "captions", "descriptions")
    )
    public = public_id("/home/a.jpg")
    assert set(items["item_id"]) == {public, "b.jpg"} and set(descriptions["item_id"]) == {public}
    assert captions["caption_id"][0] == f"{public}#en#0"
    assert set(items["uri"]) == {"", "https://web.org/b.jpg"}
    assert descriptions["captioner"][0] == "…/captioner"
    assert (tmp_path / "out" / "items" / "a_b-00000-of-00001.parquet").exists()


def test_features_stay_as_they_are(tmp_path):
    export(write_feature_corpus(tmp_path / "corpus"), tmp_path / "out")
    rows = polars.read_parquet(f"{tmp_path}/out/training/*.parquet")
    assert rows["media"][0].startswith(b"\x93NUMPY")
    assert '"training-rows/media"' not in (tmp_path / "out" / CROISSANT).read_text()


def test_croissant_names_files_and_columns(exported):
    described = json.loads((exported / CROISSANT).read_text())
    assert {files["includes"] for files in described["distribution"]} >= {"items/*.parquet", "training/*.parquet"}
    fields = {field["@id"]: field for of in described["recordSet"] for field in of["field"]}
    assert fields["training-rows/media"]["dataType"] == "sc:ImageObject"
    assert fields["descriptions-rows/flags"]["repeated"] and "subField" in fields["training-rows/captions"]
    assert "a-model wrote descriptions" in described["rai:machineAnnotationTools"]
    assert described["rai:personalSensitiveInformation"]


def test_started_again_it_writes_what_has_changed(corpus, tmp_path):
    export(corpus, tmp_path / "out")
    inodes = {path: path.stat().st_ino for path in tmp_path.rglob("*.parquet")}
    other = tmp_path / "out" / "captions" / "train-00000-of-00009.parquet"
    other.write_bytes(b"of an earlier version")
    first = tmp_path / "out" / "items" / "train-00000-of-00003.parquet"
    first.unlink()
    export(corpus, tmp_path / "out")
    again = {path: path.stat().st_ino for path in tmp_path.rglob("*.parquet")}
    assert again.keys() == inodes.keys() and {path for path in again if again[path] != inodes[path]} <= {first}
    assert "holds other files" in export(corpus, corpus, status=2).stderr


@pytest.fixture
def server(tmp_path):
    with serving(Hub, folder=tmp_path, puts=[], delay_s=0.0) as server:
        yield server


def test_pushed_after_it_was_verified(corpus, tmp_path, server, monkeypatch):
    for name, value in {"ENDPOINT": server.url, "HF_HUB_DISABLE_XET": True, "HF_HUB_OFFLINE": False}.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setenv("HF_TOKEN", "hf_of_a_test")
    (tmp_path / "files.json").write_text(
        '{"items/train-00000-of-00009.parquet": "of an earlier version", "notes.txt": "0"}'
    )
    for name in ("of an earlier version", "0"):
        (tmp_path / name).write_bytes(b"")
    assert "uploaded" in export(corpus, tmp_path / "out", "--push", "me/photos").stdout
    files = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.*") if path.is_file()}
    assert set(json.loads((tmp_path / "files.json").read_text())) == {*files, "notes.txt"}
    damaged = write_table(tmp_path / "damaged", "items", [[item("a.png"), item("a.png")]])
    assert "same item_id" in export(damaged, tmp_path / "other", "--push", "me/other", status=1).stderr
    assert not (tmp_path / "other").exists()
    server.shutdown()
    assert "OWNER/NAME" in export(corpus, tmp_path / "out", "--push", "photos", status=2).stderr


READ_BACK = """
import datasets
rows = datasets.load_dataset("me/photos", "descriptions")
pictures = datasets.load_dataset("me/photos", "training")
print({split: sorted(pictures[split]["item_id"]) for split in sorted(pictures)}, rows["train"].num_rows)
print([row["media"].size for row in pictures["test"]])
"""


@pytest.mark.torture
def test_killed_in_the_middle_of_the_upload(corpus, tmp_path, server):
    """What had arrived is not sent again, and the data set is read back from the Hub."""
    server.delay_s = 0.5
    settings = {
        "HF_ENDPOINT": server.url,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HOME": str(tmp_path / "hf"),
        "HF_TOKEN": "hf_x",
    }
    environment = clean_environment(**settings)
    environment.pop("HF_HUB_OFFLINE", None)
    arguments = command("--stage", "export", "--output", corpus, "--to", tmp_path / "out", "--push", "me/photos")
    process = subprocess.Popen(arguments, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and len(server.puts) < 3:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "files.json").exists()
    time.sleep(2 * server.delay_s)
    before = set(server.puts)
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    shards = len(list((tmp_path / "out").rglob("*.parquet")))
    assert 3 <= len(before) < shards and max(collections.Counter(server.puts).values()) == 1
    read = subprocess.run(
        [sys.executable, "-c", READ_BACK], env=environment, capture_output=True, text=True, check=False
    )
    assert read.returncode == 0, read.stderr
    expected = {split: sorted(ids) for split, ids in sorted(SPLITS.items())}
    assert read.stdout.splitlines() == [f"{expected} 3", "[(48, 40)]"]

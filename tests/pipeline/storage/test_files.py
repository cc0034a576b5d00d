"""Files and folders, the same on a disk and in a real object store."""

import copy
import hashlib
import http.server
import json
import threading
import time
from typing import ClassVar

import pytest

from pipeline.errors import EnvironmentTrouble, UsageError
from pipeline.storage.files import (
    absolute,
    in_parallel,
    local_copy,
    location,
    open_arrow,
    path_on_disk,
    remove_tree,
    version,
    write_file,
)
from pipeline.storage.folders import Folders
from pipeline.storage.object_path import FileChanged, ObjectPath


def write(path, data, *seen):
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_file(path, *seen) as stream:
        stream.write(data)


def test_files_and_folders(folder):
    assert not (folder / "items").exists() and list((folder / "items").glob("*")) == []
    for name in ("items/b.arrow", "items/a.arrow", "items/manifest.json", "items/more/deep.arrow"):
        write(folder / name, name.encode())
    items = copy.deepcopy(folder / "items")
    assert items.is_dir() and not items.is_file() and (items / "a.arrow").is_file()
    assert {path.name for path in items.glob("*.arrow")} == {"a.arrow", "b.arrow"}
    assert {path.name for path in items.rglob("*.arrow")} == {"a.arrow", "b.arrow", "deep.arrow"}
    assert {path.name for path in items.iterdir()} == {"a.arrow", "b.arrow", "manifest.json", "more"}
    assert (items / "a.arrow").stat().st_size == 13 and (items / "a.arrow").read_text() == "items/a.arrow"
    with (items / "a.arrow").open("rb") as stream, open_arrow(items / "b.arrow") as arrow:
        assert stream.read(5) == b"items" and arrow.read(7) == b"items/b"
    (items / "a.arrow").replace(items / "c.arrow")
    (items / "b.arrow").unlink()
    (items / "b.arrow").unlink(missing_ok=True)
    assert {path.name for path in items.glob("*.arrow")} == {"c.arrow"}
    for read in ((items / "b.arrow").read_bytes, (items / "b.arrow").stat, (items / "b.arrow").unlink):
        with pytest.raises(FileNotFoundError):
            read()
    remove_tree(items)
    remove_tree(items)
    assert not items.exists()


def test_a_file_appears_whole_or_not_at_all(folder):
    with pytest.raises(RuntimeError), write_file(folder / "file") as stream:
        stream.write(b"half")
        raise RuntimeError
    assert not (folder / "file").exists() and list(folder.iterdir()) == []


def test_only_the_version_that_was_seen_is_replaced(folder):
    path = folder / "file"
    assert version(path) is None
    write(path, b"first", None)
    seen = version(path)
    with pytest.raises(FileChanged):
        write(path, b"second", None)
    write(path, b"third", seen)
    with pytest.raises(FileChanged):
        write(path, b"fourth", seen)
    assert path.read_bytes() == b"third"
    path.unlink()
    with pytest.raises(FileChanged):
        write(path, b"fifth", seen)
    assert not path.exists()


class GoogleStore(http.server.BaseHTTPRequestHandler):
    """What Google Cloud Storage does with conditional writes: it compares generations, not ETags."""

    objects: ClassVar[dict[str, tuple[int, bytes]]] = {}

    def do_PUT(self):
        data, condition = self.rfile.read(int(self.headers["Content-Length"])), "x-goog-if-generation-match"
        generation, _ = self.objects.get(self.path, (0, b""))
        changed = int(self.headers.get(condition, generation)) != generation
        if not changed:
            self.objects[self.path] = generation + 1, data
        self.answer(412 if changed else 200, b"")

    def do_GET(self):
        present = self.path in self.objects
        self.answer(200 if present else 404, self.objects[self.path][1] if present else b"")

    do_HEAD = do_GET

    def answer(self, status, body):
        generation, data = self.objects.get(self.path, (0, b""))
        self.send_response(status)
        for name, value in (("ETag", f'"{hashlib.md5(data).hexdigest()}"'), ("x-goog-generation", generation)):
            self.send_header(name, value)
        self.send_header("Last-Modified", self.date_time_string())
        self.send_header("Content-Length", len(body))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_):
        pass


def test_only_the_generation_that_was_seen_is_replaced_in_google_cloud_storage(monkeypatch, tmp_path):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), GoogleStore)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    account = dict.fromkeys(("client_email", "private_key", "private_key_id"), "")
    (tmp_path / "account.json").write_text(json.dumps({"gcs_base_url": url, "disable_oauth": True, **account}))
    monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT", str(tmp_path / "account.json"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    path = location("gs://corpora/file")
    first = path.put(b"first", None)
    with pytest.raises(FileChanged):
        path.put(b"second", None)
    path.put(b"third", first)
    with pytest.raises(FileChanged):
        path.put(b"fourth", first)
    assert path.read_bytes() == b"third"
    GoogleStore.objects.clear()
    with pytest.raises(FileChanged):
        path.put(b"fifth", first)
    server.shutdown()


def test_of_many_writers_of_a_new_object_one_wins(object_store, tmp_path):
    path, won = location(f"s3://corpora/{tmp_path.name}/file"), []

    def race(name):
        try:
            write(path, name, None)
            won.append(name)
        except FileChanged:
            pass

    threads = [threading.Thread(target=race, args=(str(number).encode(),)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert won == [path.read_bytes()]


def test_names(monkeypatch, tmp_path):
    path = location("s3://bucket/corpus") / "items" / "part.arrow"
    assert str(path) == "s3://bucket/corpus/items/part.arrow" and str(path.parent) == "s3://bucket/corpus/items"
    assert (path.bucket, path.key, path.name) == ("s3://bucket", "corpus/items/part.arrow", "part.arrow")
    assert absolute("s3://bucket/x") == "s3://bucket/x" and path.absolute() == path
    monkeypatch.chdir(tmp_path)
    assert absolute("x") == str(tmp_path / "x")
    with pytest.raises(TypeError, match="not on this machine"):
        open(path)  # noqa: SIM115
    for typed in ("s3://", "s3:/bucket/corpus", "S3://bucket/corpus", "s3:///corpus", "https://host/corpus"):
        with pytest.raises(UsageError, match="s3://BUCKET"):
            location(typed)
    with pytest.raises(UsageError, match="on a disk"):
        path_on_disk("gs://bucket/run")


def test_a_store_that_is_away_or_refuses_is_explained(object_store, monkeypatch):
    with pytest.raises(FileNotFoundError):
        location("s3://no-such-bucket/corpus/file").read_bytes()
    with pytest.raises(EnvironmentTrouble, match="no bucket s3://no-such-bucket"):
        list(location("s3://no-such-bucket/corpus").rglob("*"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "127.0.0.1:9")
    with pytest.raises(UsageError, match="http://HOST"):
        location("s3://nowhere/file").read_bytes()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(EnvironmentTrouble, match=r"s3://elsewhere/file.*does not answer"):
        location("s3://elsewhere/file").read_bytes()


def test_threads_may_copy_the_same_object(object_store, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    paths = [location(f"s3://corpora/{tmp_path.name}/{number}") for number in range(8)]
    for path in paths:
        write(path, bytes(1_000_000))
    reads, read_buffer = [], ObjectPath.read_buffer
    monkeypatch.setattr(ObjectPath, "read_buffer", lambda path: reads.append(path) or read_buffer(path))
    copies = in_parallel(local_copy, paths * 8)
    assert all(copy.stat().st_size == 1_000_000 for copy in copies)
    assert sorted(reads) == paths and not list(tmp_path.rglob("*.lock"))  # each was downloaded once


def test_shards_are_fetched_ahead_and_checked(object_store, tmp_path, monkeypatch):
    from pipeline.storage import files

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    entries = []
    for number in range(9):
        path, data = location(f"s3://corpora/{tmp_path.name}/{number}"), bytes([number]) * 100
        write(path, data)
        entries.append((path, {"bytes": 100, "sha256": hashlib.sha256(data).hexdigest()}))
    files.fetch_ahead([*entries, (tmp_path / "on a disk", {"bytes": 10**15})])
    deadline = time.monotonic() + 60
    while len(list(tmp_path.rglob("objects/*"))) < 9 or list(tmp_path.rglob("*.lock")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    remove_tree(location(f"s3://corpora/{tmp_path.name}"))
    assert [local_copy(path, entry["sha256"]).read_bytes()[0] for path, entry in entries] == list(range(9))
    write(entries[0][0], b"replaced")
    with pytest.raises(OSError, match="differs from its manifest"):
        local_copy(entries[0][0], "0" * 64)
    monkeypatch.setattr(files, "CACHE_BYTES", 800)
    with pytest.raises(UsageError, match="LECCR_CACHE_GB"):
        files.fetch_ahead(entries)


def test_copies_are_kept_until_there_are_too_many(object_store, tmp_path, monkeypatch):
    from pipeline.storage import files

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(files, "CACHE_BYTES", 250)
    paths = [location(f"s3://corpora/{tmp_path.name}/{number}") for number in range(3)]
    for path in paths:
        write(path, bytes(100))
    copies = [files.local_copy(path) for path in paths]
    assert [copy.exists() for copy in copies] == [False, True, True]
    assert files.local_copy(paths[2]) == copies[2]
    write(paths[2], b"new")
    assert files.local_copy(paths[2]).read_bytes() == b"new"
    monkeypatch.setattr(files, "CACHE_BYTES", 10**6)
    monkeypatch.setattr("os.scandir", None)  # a small copy does not look through the whole cache
    assert files.local_copy(paths[0]).exists()


def test_small_files_of_a_store_that_have_not_changed_are_read_together(folder, monkeypatch):
    from pipeline.storage import folders

    monkeypatch.setattr(folders, "MANY", 3)
    read_version, reads = ObjectPath.read_version, []
    monkeypatch.setattr(ObjectPath, "read_version", lambda path: reads.append(path.name) or read_version(path))
    for number in range(5):
        write(folder / "state" / f"part-{number}", f"first {number}".encode())
    for _ in range(2):
        assert Folders().read(folder / "state" / "part-3") == b"first 3"
    assert sorted(reads) in ([], sorted([*(f"part-{number}" for number in range(5)), *2 * ["together.arrow"]]))
    write(folder / "state" / "part-3", b"second")
    (folder / "state" / "part-1").unlink()
    files = Folders()
    contents = [files.read(folder / "state" / f"part-{number}") for number in range(5)]
    assert contents == [b"first 0", None, b"first 2", b"second", b"first 4"]
    assert files.state(folder / "state" / "part-3").size == 6 and Folders().read(folder / "none" / "part-0") is None

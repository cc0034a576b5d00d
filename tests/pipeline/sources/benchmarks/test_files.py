"""The files of benchmarks: encodings, line ends, JSON, BigFiles."""

import gzip
import shutil

import numpy as np
import pytest

from pipeline.errors import UsageError
from pipeline.media.uri import open_media
from pipeline.sources.benchmarks.files import read_bigfile, read_layout, read_lines, read_names
from tests.pipeline.sources.benchmarks.layouts import write_bigfile


def rows_of(bigfile) -> dict[str, list[int]]:
    """By item, the rows that are there once its reference is opened."""
    rows = {}
    for item, uri in bigfile[0].items():
        with open_media(uri) as stream:
            rows[item] = np.load(stream, allow_pickle=False)[:, 0].tolist()
    return rows


def read(folder, items):
    return read_bigfile(folder, {item: item for item in items})


def error_of(folder, items=("v",)) -> str:
    with pytest.raises(UsageError) as caught:
        read(folder, items)
    return str(caught.value)


def test_the_frames_that_video2frames_names(tmp_path):
    ids = [f"video0_{number}" for number in range(30)] + ["video1_0", "other", "video0_30"]
    videos = {"video0": [*ids[:30], "video0_30"], "video1.mp4": ["video1_0"], "video2": [], "video9": ["other"]}
    folder = write_bigfile(tmp_path / "f", ids, dim=4, videos=videos)
    bigfile = read(folder, ["video0", "video1", "video2", "video3"])
    uris = {"video0": f"{folder}/feature.bin#dim=4&rows=0-29,32", "video1": f"{folder}/feature.bin#dim=4&rows=30"}
    assert bigfile == (uris, True, ["video9"])
    assert rows_of(bigfile) == {"video0": [*range(30), 32], "video1": [30]}


def test_ids_of_items_are_images(tmp_path):
    bigfile = read(write_bigfile(tmp_path / "f", ["COCO_1", "COCO_2.jpg", "COCO_3"]), ["COCO_1", "COCO_2"])
    assert rows_of(bigfile) == {"COCO_1": [0], "COCO_2": [1]} and bigfile[1:] == (False, ["COCO_3"])


def test_files_that_disagree_are_refused(tmp_path):
    whole = write_bigfile(tmp_path / "whole", ["v_0", "v_1", "v_2"])

    def broken(name, content):
        folder = tmp_path / "broken"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(whole, folder)
        (folder / name).write_bytes(content)
        return error_of(folder)

    assert "feature.bin has 35 bytes; expected 36 bytes for the 3 rows of 3 floats" in broken("feature.bin", bytes(35))
    assert "feature.bin has 36 bytes; expected 24 bytes for the 2 rows" in broken("shape.txt", b"2 3")
    assert "id.txt has 2 ids; expected 3" in broken("id.txt", b"v_0 v_1")
    assert "the id 'v_0' for row 0 and row 2" in broken("id.txt", b"v_0 v_1 v_0")
    for shape in (b"", b"3", b"3 3 1", b"3 -3", b"0 3", b"3 3.0", b"3 x", "٣ 3".encode()):
        assert "shape.txt has" in broken("shape.txt", shape)
    lost = broken("video2frames.txt", b"{'v': ['v_0', 'v_7', 'v_8']}")
    assert "2 frames, such as 'v_7', that are not in id.txt" in lost
    for text in (b"", b"__import__('os')", b"{'v': f('b')}", b"['v']", b"{'v': ['v_0']", b"{" * 100_000):
        assert "video2frames.txt has another layout" in broken("video2frames.txt", text)
    (tmp_path / "broken" / "id.txt").unlink()
    assert "cannot read" in error_of(tmp_path / "broken")


def test_names_of_python_2_and_in_other_encodings(tmp_path):
    path = tmp_path / "video2frames.txt"
    for encoding in ("utf-8", "iso-8859-1"):
        path.write_text("{u'video0': [u'video0_0', u'café',],}\n", encoding)
        assert read_names(path) == {"video0": ["video0_0", "café"]}


def test_files_that_cannot_be_read_name_their_place(tmp_path):
    path = tmp_path / "captions.en.gz"
    path.write_bytes(gzip.compress(b"One.\n" * 100)[:-9])
    with pytest.raises(UsageError, match=r"cannot read .*captions.en.gz"):
        read_lines(path)
    with pytest.raises(UsageError, match=r"cannot read .*gone.txt"):
        read_lines(tmp_path / "gone.txt")
    for mark in (b"", b"\xef\xbb\xbf"):
        (tmp_path / "a.txt").write_bytes(mark + b"One.\n\xc3\xa4b\xe4d\n")
        with pytest.raises(UsageError, match="line 2 is not UTF-8"):
            read_lines(tmp_path / "a.txt")
    path = tmp_path / "captions.json"
    for text, message in (('{"images": [\n  1,,\n]}', "line 2 column 5"), ("[" * 100_000, "RecursionError")):
        path.write_text(text)
        with pytest.raises(UsageError, match=message):
            read_layout(path, list, "a list")

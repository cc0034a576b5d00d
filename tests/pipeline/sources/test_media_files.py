import contextlib
import os

import fsspec
import pytest

from pipeline.errors import UsageError
from pipeline.sources import SourceCaption, open_source
from pipeline.sources.items import split_of_path, split_of_shard
from tests.pipeline.sources.helpers import content, jpeg, listed, not_taken, texts, write
from tests.worked_examples import each_example


def test_media_are_listed_recursively_and_sorted(tmp_path):
    names = ["b.jpg", "a/2.JPG", "a/1.jpg", "a/x y#%41é.jpg", "Z.png", "c/d/e.mp4"]
    write(tmp_path, {name: jpeg(number) for number, name in enumerate(names)})
    write(tmp_path, {".hidden.jpg": jpeg(9), ".cache/x.jpg": jpeg(9), "notes.md": "", "__pycache__/a.pyc": ""})
    with open(os.fsencode(tmp_path) + b"/\xff.jpg", "wb"):
        pass
    source = open_source(str(tmp_path))
    items = listed(source)
    assert list(items) == sorted(names)
    assert {name: content(items[name]) for name in names} == {name: jpeg(at) for at, name in enumerate(names)}
    assert source.summary == f"folder {tmp_path}: 6 media files"
    assert {reason.text: reason.count for reason in source.account if not reason.kind} == {
        "hidden files and folders": 2,
        "other files": 2,
    }
    assert not_taken(source) == {"\\xff.jpg": "not_taken"}
    assert items["b.jpg"].uri == str(tmp_path / "b.jpg")
    assert list(source.items()) == list(items.values())  # again, the same


def test_links_may_form_circles_and_order_does_not_depend_on_the_disk(tmp_path, monkeypatch):
    write(tmp_path / "media", {"a/1.jpg": jpeg(1), "a/3.jpg": jpeg(1), "b/2.jpg": jpeg(2)})
    write(tmp_path / "else", {"o.jpg": jpeg(2)})
    links = {"a/up": "", "a/other": "b", "b/self": "b/self", "gone.jpg": "nothing.jpg", "linked.jpg": "a/1.jpg"}
    for link, target in {**links, "y": "../else", "x": "../else"}.items():
        (tmp_path / "media" / link).symlink_to(tmp_path / "media" / target)
    scandir = os.scandir

    @contextlib.contextmanager
    def scan_backwards(folder):
        with scandir(folder) as entries:
            yield list(entries)[::-1]

    for order in (scandir, scan_backwards):
        monkeypatch.setattr(os, "scandir", order)
        source = open_source(str(tmp_path / "media"))
        assert list(listed(source)) == ["a/1.jpg", "a/3.jpg", "b/2.jpg", "linked.jpg", "x/o.jpg"]
        assert not_taken(source) == {"gone.jpg": "not_taken", "b/self": "not_taken"}


@each_example("thumbnails_and_trash_are_no_input_but_counted", "name")
def test_thumbnails_and_trash_are_no_input_but_counted(tmp_path, name):
    write(tmp_path, {"x/1.jpg": jpeg(1), name: jpeg(2)})
    memory = fsspec.filesystem("memory")
    for path in ("x/1.jpg", name):
        memory.pipe(f"/nas/{path}", jpeg(1))
    for folder in (str(tmp_path), "memory://nas"):
        source = open_source(folder)
        assert list(listed(source)) == ["x/1.jpg"] and not_taken(source) == {}
        (reason,) = source.account
        assert reason.count == 1
    memory.rm("/nas", recursive=True)


@pytest.mark.parametrize("table", ["items", "training"])
def test_a_corpus_among_the_photos_is_no_input(tmp_path, table):
    """Its contact sheet would become an item. It may come without its .state, or packed alone."""
    corpus = {f"mine/{table}/manifest.json": "{}", "mine/contact-sheet.png": jpeg(2), "mine/README.md": ""}
    for name, data in {"1.jpg": jpeg(1), **corpus}.items():
        write(tmp_path, {name: data})
        fsspec.filesystem("memory").pipe(f"/pics/{name}", jpeg(1))
    for folder in (str(tmp_path), "memory://pics"):
        source = open_source(folder)
        assert list(listed(source)) == ["1.jpg"]
        assert [reason.names for reason in source.account] == [["mine"]]
    fsspec.filesystem("memory").rm("/pics", recursive=True)


@pytest.mark.parametrize("closed", ["b", "a/deep", "z/1"])
def test_a_folder_that_may_not_be_read_is_listed_as_a_failure(tmp_path, monkeypatch, closed):
    write(tmp_path, {"1.jpg": jpeg(1), "c/2.jpg": jpeg(2), f"{closed}/3.jpg": jpeg(3)})
    scandir = os.scandir

    def scan(folder):
        if str(folder).endswith(closed):
            raise PermissionError(13, "Permission denied", folder)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", scan)
    source = open_source(str(tmp_path))
    assert list(listed(source)) == ["1.jpg", "c/2.jpg"] and not_taken(source) == {closed: "unreadable"}
    with pytest.raises(UsageError, match="cannot list"):
        open_source(str(tmp_path / closed))


def test_files_that_look_like_media_are_listed(tmp_path):
    names = ["2.psd", "3.svg", "5.tar", "6.md", "7", "8.zip", "9.MPO"]
    write(tmp_path, {"1.jpg": jpeg(1), **dict.fromkeys(names, "")})
    assert list(not_taken(open_source(str(tmp_path)))) == ["2.psd", "3.svg", "5.tar", "8.zip", "9.MPO"]


def test_splits_come_from_the_column_else_the_folder_else_the_setting(tmp_path):
    write(tmp_path, {f"{top}/1.jpg": jpeg(1) for top in ("train", "valid", "dev", "Test", "holiday")})
    write(tmp_path, {"0.jpg": jpeg(1), "captions.csv": "file,split,caption\ndev/1.jpg,test,\n0.jpg,validation,\n"})
    splits = {name: item.split for name, item in listed(open_source(str(tmp_path), split="extra")).items()}
    assert splits == {
        "0.jpg": "val",
        "Test/1.jpg": "test",
        "dev/1.jpg": "test",
        "holiday/1.jpg": "extra",
        "train/1.jpg": "train",
        "valid/1.jpg": "val",
    }


def test_a_url_is_listed_like_a_folder():
    memory = fsspec.filesystem("memory")
    captions = b'{"file": "one/a.jpg", "captions": ["of a"]}\n{"file": "b.jpg", "text": "of b"}'
    files = {"one/a.jpg": jpeg(1), "one/in/b.jpg": jpeg(2), "one/.x/c.jpg": jpeg(3), "captions.jsonl": captions}
    for name, data in files.items():
        memory.pipe(f"/pics/{name}", data)
    source = open_source("memory://pics/one/")
    items = listed(source)
    memory.rm("/pics/captions.jsonl")
    assert {name: content(item) for name, item in items.items()} == {"a.jpg": jpeg(1), "in/b.jpg": jpeg(2)}
    assert [texts(item) for item in items.values()] == [["of a"], ["of b"]]


def test_photos_with_captions_and_licences_above_the_folder(data):
    items = listed(open_source(str(data / "coco_cc_by" / "images")))
    assert len(items) == 111 and sum(len(item.captions) for item in items.values()) == 555
    bear = items["000000000285.jpg"]
    assert bear.captions[1] == SourceCaption("The large brown bear has a black nose.", "en", "human")
    assert bear.license == "Attribution License <http://creativecommons.org/licenses/by/2.0/>"
    above = listed(open_source(str(data / "coco_cc_by")))
    assert [item.captions for item in above.values()] == [item.captions for item in items.values()]


def test_a_folder_without_media_is_refused(tmp_path):
    write(tmp_path, {".a.jpg": jpeg(1), "a.txt": "", "b/c.TXT": "", "d.json": "", "README": ""})
    for kind in ("auto", "folder"):
        with pytest.raises(UsageError, match=r"1 .json, 2 .txt, 1 no suffix"):
            open_source(str(tmp_path), kind)


def test_a_list_holds_urls_and_paths_relative_to_it(tmp_path):
    fsspec.filesystem("memory").pipe("/list/far.jpg", jpeg(4))
    write(tmp_path, {"in/a.jpg": jpeg(1), "b c.jpg": jpeg(2), "lists/é.jpg": jpeg(3)})
    text = f"\ufeff# mine\r\n../in//a.jpg\r\n\r\n{tmp_path}/b c.jpg  \n./é.jpg\nmemory://list/far.jpg\n"
    write(tmp_path, {"lists/my.txt": text})
    items = listed(open_source(str(tmp_path / "lists" / "my.txt"), split="val", license="CC0"))
    assert list(items) == ["../in/a.jpg", f"{tmp_path}/b c.jpg", "é.jpg", "memory://list/far.jpg"]
    assert [content(item) for item in items.values()] == [jpeg(1), jpeg(2), jpeg(3), jpeg(4)]
    assert {(item.split, item.license, item.source) for item in items.values()} == {("val", "CC0", "my")}
    fsspec.filesystem("memory").pipe("/list/l.txt", b"far.jpg\n")  # a list of its own, relative to itself
    (item,) = listed(open_source("memory://list/l.txt")).values()
    assert content(item) == jpeg(4)


@each_example("splits_by_neighbours_and_by_names_of_tables", "files")
def test_splits_by_neighbours_and_by_names_of_tables(tmp_path, files):
    write(tmp_path, files)
    items = listed(open_source(str(tmp_path)))
    assert {name[-5:]: item.split == "train" for name, item in items.items()} == {"1.jpg": True, "2.jpg": False}


@pytest.mark.parametrize("name", ["#1.jpg", "# two.png", "##3.jpg"])
def test_a_name_may_begin_like_a_comment(tmp_path, name):
    write(tmp_path, {name: jpeg(1), "b.jpg": jpeg(2), "l.txt": f"# mine\n#gone.jpg\n{name}\nb.jpg\n./b.jpg\n{name}\n"})
    source = open_source(f"{tmp_path}/l.txt")
    assert list(listed(source)) == [name, "b.jpg"] and not_taken(source) == {}
    assert [(reason.count, reason.names[0]) for reason in source.account] == [(2, "# mine"), (2, "b.jpg")]


@each_example("splits_by_folder", "path, split")
def test_splits_by_folder(path, split):
    assert split_of_path(path, "own") == split


@each_example("splits_of_shards", "path, split")
def test_splits_of_shards(path, split):
    assert split_of_shard(path, "own") == split


@pytest.mark.parametrize("root", ["", ".\\", "/mnt/test/", "s3://test/train/"])
def test_splits_of_a_list(tmp_path, root):
    write(
        tmp_path, {"l.txt": "".join(f"{root}{name}/1.jpg\n" for name in ("train2017", "val2017", "x/test_images", "y"))}
    )
    splits = [item.split for item in listed(open_source(f"{tmp_path}/l.txt", split="own")).values()]
    assert splits == ["train", "val", "test", "own"]


def test_bad_lists_are_refused_with_their_line(tmp_path):
    write(tmp_path, {"none.txt": "# nothing\n\n", "bad.txt": b"a.jpg\n\xff.jpg\n"})
    for name, message in {"none.txt": "names no file", "bad.txt": r"bad\.txt line 2 is not UTF-8"}.items():
        with pytest.raises(UsageError, match=message):
            open_source(str(tmp_path / name))

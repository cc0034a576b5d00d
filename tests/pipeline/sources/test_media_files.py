import os

import fsspec
import pytest

from pipeline.errors import UsageError
from pipeline.sources import SourceCaption, open_source
from tests.pipeline.sources.helpers import content, jpeg, listed, texts, write


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
    ignored = "2 other files ignored, 1 names that are not UTF-8, not used"
    assert source.summary == f"folder {tmp_path}: 6 media files, {ignored}"
    assert items["b.jpg"].uri == str(tmp_path / "b.jpg")
    assert list(source.items()) == list(items.values())  # again, the same


def test_links_may_form_circles_and_order_does_not_depend_on_the_disk(tmp_path, monkeypatch):
    write(tmp_path / "media", {"a/1.jpg": jpeg(1), "a/3.jpg": jpeg(1), "b/2.jpg": jpeg(2)})
    write(tmp_path / "else", {"o.jpg": jpeg(2)})
    links = {"a/up": "", "a/other": "b", "b/self": "b/self", "gone.jpg": "nothing.jpg", "linked.jpg": "a/1.jpg"}
    for link, target in {**links, "y": "../else", "x": "../else"}.items():
        (tmp_path / "media" / link).symlink_to(tmp_path / "media" / target)
    walk = os.walk

    def walk_backwards(top, **options):
        for folder, names, files in walk(top, **options):
            names.reverse()
            yield folder, names, files[::-1]

    for order in (walk, walk_backwards):
        monkeypatch.setattr(os, "walk", order)
        items = listed(open_source(str(tmp_path / "media")))
        assert list(items) == ["a/1.jpg", "a/3.jpg", "b/2.jpg", "linked.jpg", "x/o.jpg"]


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


def test_bad_lists_are_refused_with_their_line(tmp_path):
    write(tmp_path, {"none.txt": "# nothing\n\n", "bad.txt": b"a.jpg\n\xff.jpg\n"})
    for name, message in {"none.txt": "names no file", "bad.txt": r"bad\.txt line 2 is not UTF-8"}.items():
        with pytest.raises(UsageError, match=message):
            open_source(str(tmp_path / name))

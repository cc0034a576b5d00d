import fsspec
import pytest

from pipeline.errors import UsageError
from pipeline.sources import open_source
from tests.pipeline.sources.helpers import content, jpeg, listed, write


def test_lines_are_paths_from_the_lists_folder_and_urls(tmp_path):
    fsspec.filesystem("memory").pipe("/list/far.jpg", jpeg(4))
    write(tmp_path, {"in/a.jpg": jpeg(1), "b c.jpg": jpeg(2), "lists/é.jpg": jpeg(3)})
    text = f"\ufeff# mine\r\n../in//a.jpg\r\n\r\n{tmp_path}/b c.jpg  \n./é.jpg\nmemory://list/far.jpg\n"
    write(tmp_path, {"lists/my.txt": text})
    source = open_source(str(tmp_path / "lists" / "my.txt"), split="val", license="CC0")
    items = listed(source)
    assert source.summary == f"paths {tmp_path}/lists/my.txt: 4 paths"
    assert list(items) == ["../in/a.jpg", f"{tmp_path}/b c.jpg", "é.jpg", "memory://list/far.jpg"]
    assert [content(item) for item in items.values()] == [jpeg(1), jpeg(2), jpeg(3), jpeg(4)]
    assert {(item.split, item.license, item.source) for item in items.values()} == {("val", "CC0", "my")}


def test_a_list_behind_a_url_names_its_neighbours():
    memory = fsspec.filesystem("memory")
    memory.pipe("/lists/near.jpg", jpeg(7))
    memory.pipe("/lists/l.txt", b"near.jpg\n")
    (item,) = listed(open_source("memory://lists/l.txt")).values()
    assert content(item) == jpeg(7)


def test_what_is_no_list_is_refused_with_its_line(tmp_path):
    write(
        tmp_path, {"none.txt": "# nothing\n\n", "bad.txt": b"a.jpg\n\xff.jpg\n", "twice.txt": "a.jpg\nb.jpg\n./a.jpg\n"}
    )
    for name, message in {"none.txt": "names no file", "bad.txt": r"bad\.txt line 2: got bytes"}.items():
        with pytest.raises(UsageError, match=message):
            open_source(str(tmp_path / name))
    with pytest.raises(UsageError, match=r"the id 'a\.jpg' comes twice, as item 1 \(.*a\.jpg\) and item 3 \("):
        listed(open_source(str(tmp_path / "twice.txt")))

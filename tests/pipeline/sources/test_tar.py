import gzip
import json
import tarfile

import fsspec
import pytest

from pipeline.errors import UsageError
from pipeline.sources import SourceCaption, open_source
from tests.pipeline.sources.helpers import content, jpeg, listed, not_taken, pack, texts
from tests.worked_examples import each_example


def test_members_become_samples(tmp_path):
    members = [
        ("./001.JPG", jpeg(1)),
        ("./001.json", b'{"caption": "from json", "text": "x", "license": "CC0", "split": "val", "language": "de"}'),
        ("./in/002.v1.seg.png", jpeg(2)),
        ("./in/002.caption", b"of 2"),
        ("./in/002.jpg", jpeg(3)),
        ("./" + "long" * 60 + ".webp", jpeg(4)),
        ("./004.json", b"[1, 2]"),
        ("./README", b"no suffix"),
        ("./001.txt", b" from text\n"),  # far from its picture
    ]
    tar = pack(tmp_path / "photos.tar", members)
    source = open_source(str(tar), caption_language="fr", license="mine")
    items = listed(source)
    assert {key: content(item) for key, item in items.items()} == {
        "001": jpeg(1),
        "in/002": jpeg(3),
        "long" * 60: jpeg(4),
    }
    first = items["001"]
    assert first.captions == (SourceCaption("from text", "de"), SourceCaption("from json", "de"))
    assert (first.license, first.split, first.source) == ("CC0", "val", "photos")
    assert (items["in/002"].license, items["in/002"].split, texts(items["in/002"])) == ("mine", "train", ["of 2"])
    assert source.summary == f"webdataset {tar}: 1 tar files, 3 samples"
    assert not_taken(source) == {"./in/002.v1.seg.png": "not_taken", "004": "not_taken", "text": "unknown_column"}


def test_members_outside_their_folder_are_never_used(tmp_path):
    tar = tmp_path / "evil.tar"
    names = ("../out.jpg", "/etc/abs.jpg", "a/../../b.jpg", "a\\..\\c.jpg", "\udcff.jpg", "good.jpg")
    pack(tar, [(name, jpeg(1)) for name in names])
    with tarfile.open(tar, "a") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE):
            info = tarfile.TarInfo(f"{kind.decode()}.jpg")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    source = open_source(str(tar))
    assert list(listed(source)) == ["good"]
    assert len(not_taken(source)) == 9 and set(not_taken(source)) > {"../out.jpg", "\\xff.jpg"}


def test_ids_of_several_tars_begin_with_their_paths(tmp_path):
    for name in ("train/s-001", "train/s-000", "val/s-000"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        pack(tmp_path / f"{name}.tar", [("a.jpg", jpeg(len(name))), ("a.txt", name.encode())])
    folder = listed(open_source(str(tmp_path)))
    assert {key: (item.split, texts(item)) for key, item in folder.items()} == {
        "train/s-000/a": ("train", ["train/s-000"]),
        "train/s-001/a": ("train", ["train/s-001"]),
        "val/s-000/a": ("val", ["val/s-000"]),
    }
    for pattern in ("train/s-{000..001}.tar", "train/s-*.tar", "{train}/s-{000,001}.tar", "train/s-00[01].tar"):
        assert list(listed(open_source(f"{tmp_path}/{pattern}"))) == ["s-000/a", "s-001/a"]
    for pattern, message in {
        "s-{1..0}.tar": "names no file",
        "s-{000..002}.tar": r"s-002\.tar, which does not",
    }.items():
        with pytest.raises(UsageError, match=message):
            open_source(f"{tmp_path}/train/{pattern}")


def test_a_tar_behind_a_url(tmp_path):
    tar = pack(tmp_path / "one.tar", [("k.jpg", jpeg(5))])
    fsspec.filesystem("memory").pipe("/tars/one.tar", tar.read_bytes())
    for place in ("memory://tars/one.tar", "memory://tars", "memory://tars/o*.tar"):
        assert content(listed(open_source(place))["k"]) == jpeg(5)


def test_damaged_and_compressed_tars_are_refused(tmp_path):
    whole = pack(tmp_path / "whole.tar", [(f"{number}.jpg", jpeg(number)) for number in range(3)]).read_bytes()
    with tarfile.open(tmp_path / "whole.tar") as archive:
        _, second, third = (member.offset for member in archive.getmembers())
    damaged = bytearray(whole)
    damaged[third : third + 512] = b"x" * 512
    ends = (third + 700, third + 100, third, third - 1, second + 513, 100, 0)
    for data in (*(whole[:end] for end in ends), damaged, gzip.compress(whole)):
        (tmp_path / "cut.tar").write_bytes(data)
        with pytest.raises(UsageError, match=r"cut\.tar is cut, compressed or damaged at byte [0-9,]+"):
            listed(open_source(str(tmp_path / "cut.tar")))
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(whole))
    with pytest.raises(UsageError, match="decompress"):
        open_source(str(tmp_path / "a.tar.gz"))


@each_example("a_member_that_cannot_be_read_is_one_failure", "name, text, encoding, kind")
def test_a_member_that_cannot_be_read_is_one_failure(tmp_path, name, text, encoding, kind):
    members = [("a.jpg", jpeg(1)), ("a.txt", b"A cat."), ("b.jpg", jpeg(2)), (name, text.encode(encoding))]
    source = open_source(str(pack(tmp_path / "t.tar", members)))
    assert {key: texts(item) for key, item in listed(source).items()} == {"a": ["A cat."], "b": []}
    assert not_taken(source) == {name: kind}


@pytest.mark.parametrize("name", ["@eaDir/a.jpg/SMALL.jpg", "./__MACOSX/a.jpg", "x/._b.jpg", "$Recycle.Bin/c.jpg"])
def test_thumbnails_and_trash_in_a_tar(tmp_path, name):
    source = open_source(str(pack(tmp_path / "t.tar", [("./x/a.jpg", jpeg(1)), (name, jpeg(2))])))
    assert list(listed(source)) == ["x/a"] and [reason.kind for reason in source.account] == [""]


def test_a_tar_without_media_is_refused(tmp_path):
    with pytest.raises(UsageError, match="holds no sample with an image or video"):
        listed(open_source(str(pack(tmp_path / "t.tar", [("a.txt", b"1")]))))


@each_example("dots_in_names", "members, expected")
def test_dots_in_names(tmp_path, members, expected):
    """Each text says which member it is."""
    names = members.replace(". ", ".~").split(" ")
    files = [
        (name := member.replace("~", " "), jpeg(at) if name[-3:] in ("jpg", "png") else json.dumps({"text": name}))
        for at, member in enumerate(names)
    ]
    tar = pack(tmp_path / "t.tar", [(name, data if isinstance(data, bytes) else data.encode()) for name, data in files])
    items = listed(open_source(str(tar)))
    assert {key: texts(item) for key, item in items.items()} == expected
    captions = [caption for item in items.values() for caption in item.captions]
    assert all(caption.language == ("de" if ".de." in caption.text else "en") for caption in captions)

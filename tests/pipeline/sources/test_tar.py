import gzip
import io
import json
import tarfile
import tempfile
from pathlib import Path

import fsspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import UsageError
from pipeline.sources import SourceCaption, open_source
from pipeline.sources.tar import expand_braces
from tests.pipeline.sources.helpers import content, jpeg, listed, pack, texts, write


def test_members_become_samples(tmp_path):
    row = {"caption": "from json", "text": "x", "license": "CC0", "split": "val", "language": "de"}
    members = [
        ("./001.JPG", jpeg(1)),
        ("./001.json", json.dumps(row).encode()),
        ("./in/002.v1.seg.png", jpeg(2)),
        ("./in/002.caption", b"of 2"),
        ("./in/002.jpg", jpeg(3)),
        ("./in/002.cls", b"7"),
        ("./" + "long" * 60 + ".webp", jpeg(4)),
        ("./004.json", b"[1, 2]"),
        ("./README", b"no suffix"),
        ("./001.txt", b" from text\n"),  # far from its picture
    ]
    tar = pack(tmp_path / "photos.tar", members)
    source = open_source(str(tar), caption_language="fr", license="mine")
    assert source.summary == f"webdataset {tar}: 1 tar files"
    items = listed(source)
    assert list(items) == ["001", "in/002", "long" * 60]
    assert [content(item) for item in items.values()] == [jpeg(1), jpeg(3), jpeg(4)]
    first = items["001"]
    assert first.captions == (SourceCaption("from text", "de"), SourceCaption("from json", "de"))
    assert (first.license, first.split, first.source) == ("CC0", "val", "photos")
    assert (items["in/002"].license, items["in/002"].split, texts(items["in/002"])) == ("mine", "train", ["of 2"])
    unused = "1 further media of a sample, not used, 1 samples without media, not used"
    assert source.summary == f"webdataset {tar}: 1 tar files, 3 samples, {unused}"


def test_members_outside_their_folder_are_never_used(tmp_path):
    tar = tmp_path / "evil.tar"
    with tarfile.open(tar, "w") as archive:
        for name in ("../out.jpg", "/etc/abs.jpg", "a/../../b.jpg", "a\\..\\c.jpg", "\udcff.jpg", "good.jpg"):
            info = tarfile.TarInfo(name)
            info.size = len(jpeg(1))
            archive.addfile(info, io.BytesIO(jpeg(1)))
        kinds = {"l": tarfile.SYMTYPE, "h": tarfile.LNKTYPE, "d": tarfile.CHRTYPE, "p": tarfile.FIFOTYPE}
        for name, kind in kinds.items():
            info = tarfile.TarInfo(f"{name}.jpg")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
        folder = tarfile.TarInfo("folder.jpg")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
    source = open_source(str(tar))
    assert list(listed(source)) == ["good"]
    assert "1 samples, " in source.summary or source.summary.endswith("1 samples")
    assert "9 members that are links, devices or outside their folder, not used" in source.summary


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
        items = listed(open_source(f"{tmp_path}/{pattern}"))
        assert list(items) == ["s-000/a", "s-001/a"]
    assert next(expand_braces("s-{09..99999999999999}{a,b}.tar")) == "s-09a.tar"
    with pytest.raises(UsageError, match="names no file"):
        open_source(f"{tmp_path}/train/s-{{1..0}}.tar")
    with pytest.raises(UsageError, match=r"s-002\.tar, which does not exist"):
        open_source(f"{tmp_path}/train/s-{{000..002}}.tar")


def test_a_tar_behind_a_url(tmp_path):
    tar = pack(tmp_path / "one.tar", [("k.jpg", jpeg(5))])
    fsspec.filesystem("memory").pipe("/tars/one.tar", tar.read_bytes())
    for place in ("memory://tars/one.tar", "memory://tars", "memory://tars/o*.tar"):
        items = listed(open_source(place))
        assert {key: content(item) for key, item in items.items()} == {"k": jpeg(5)}


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tgz"])
def test_compressed_tars_are_refused(tmp_path, suffix):
    tar = pack(tmp_path / "a", [("a.jpg", jpeg(1))])
    path = tmp_path / f"b{suffix}"
    path.write_bytes(gzip.compress(tar.read_bytes()))
    with pytest.raises(UsageError, match="is compressed: decompress it once with gunzip"):
        open_source(str(path))


def test_a_truncated_tar_yields_what_precedes_the_cut_and_fails(tmp_path):
    members = [(f"{number}.jpg", jpeg(number)) for number in range(3)]
    whole = pack(tmp_path / "whole.tar", members).read_bytes()
    with tarfile.open(tmp_path / "whole.tar") as archive:
        starts = [member.offset for member in archive.getmembers()]
    third = starts[2]
    for end, keys in {third + 700: 2, third + 100: 2, third: 2, third - 1: 2, starts[1] + 513: 1, 100: 0, 0: 0}.items():
        (tmp_path / "cut.tar").write_bytes(whole[:end])
        got = []
        with pytest.raises(UsageError, match=r"cut\.tar is cut or damaged at byte [0-9,]+"):
            got.extend(open_source(str(tmp_path / "cut.tar")).items())
        assert [content(item) for item in got] == [jpeg(number) for number in range(keys)]
    damaged = bytearray(whole)
    damaged[third : third + 512] = b"x" * 512
    (tmp_path / "cut.tar").write_bytes(damaged)
    with pytest.raises(UsageError, match=f"damaged at byte {third:,}"):
        list(open_source(str(tmp_path / "cut.tar")).items())


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("a.jpg", b"1"), ("a.jpg", b"2")], r"holds a\.jpg twice, the second at byte 1,024"),
        ([("a.jpg", b"1"), ("a.json", b"{")], r"a\.json is not JSON"),
        ([("a.jpg", b"1"), ("a.json", b'{"caption": 3}')], r"a\.json .*3 \(int\)"),
        ([("a.jpg", b"1"), ("a.txt", b"\xff")], r"a\.txt is not text in UTF-8"),
        ([("a.jpg", b"1"), ("a.txt", b" " * (1 << 21))], r"a\.txt has 2,097,152 bytes"),
        ([("a.txt", b"1")], r"holds no sample with an image or video"),
    ],
)
def test_bad_members_are_refused(tmp_path, members, message):
    tar = pack(tmp_path / "t.tar", members)
    with pytest.raises(UsageError, match=message):
        list(open_source(str(tar)).items())


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5119), st.integers(0, 255)), min_size=1, max_size=20))
def test_a_damaged_tar_is_read_or_refused(changes):
    with tempfile.TemporaryDirectory() as folder:
        tar = pack(Path(folder) / "t.tar", [("a.jpg", b"1" * 600), ("a.txt", b"cap"), ("b.json", b"{}")])
        damaged = bytearray(tar.read_bytes())
        for place, value in changes:
            damaged[place] = value
        tar.write_bytes(damaged)
        try:
            for item in open_source(str(tar)).items():
                content(item)
        except UsageError:
            pass


def test_a_folder_of_tars_and_media_is_a_folder_of_media(tmp_path):
    write(tmp_path, {"a.jpg": jpeg(1)})
    pack(tmp_path / "t.tar", [("b.jpg", jpeg(2))])
    assert list(listed(open_source(str(tmp_path)))) == ["a.jpg"]
    assert list(listed(open_source(str(tmp_path), "webdataset"))) == ["b"]

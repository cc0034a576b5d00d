import io
import struct
import tarfile
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import EnvironmentTrouble, MediaError
from pipeline.media import uri as opening
from pipeline.media.uri import open_media, reference
from tests.pipeline.sources.helpers import pack
from tests.worked_examples import each_example

CELLS = [f"picture {row}".encode() * (row + 1) for row in range(10)]


def read(uri: str) -> bytes:
    with open_media(uri) as stream:
        assert stream.seekable()
        return stream.read()


def kind_of(uri: str) -> str:
    with pytest.raises(MediaError) as caught:
        open_media(uri)
    return caught.value.kind


@pytest.mark.parametrize("name", ["a b#1.jpg", "a%20b.jpg", "ﾅｲｽ 猫.jpg", "x.tar#offset=0&size=2&member=a", "a:b?.jpg"])
def test_plain_paths_with_odd_characters(tmp_path, monkeypatch, name):
    (tmp_path / name).write_bytes(b"bytes")
    (tmp_path / "x.tar").write_bytes(b"the container, which the file of that whole name comes before")
    assert read(str(tmp_path / name)) == b"bytes"
    monkeypatch.chdir(tmp_path)
    assert read(name) == b"bytes"


def test_urls(tmp_path):
    (tmp_path / "a b.jpg").write_bytes(b"local")
    assert read(f"file://{tmp_path}/a b.jpg") == b"local"
    fsspec.filesystem("memory").pipe("/opening/a#1.jpg", b"in memory")
    with open_media("memory://opening/a#1.jpg") as first, open_media("memory://opening/a#1.jpg") as second:
        assert first.read(3) == second.read(3) == b"in "
    fsspec.register_implementation("opening-absent", "no_such_package.Files", errtxt="pip install it", clobber=True)
    with pytest.raises(EnvironmentTrouble, match="pip install it"):
        open_media("opening-absent://a/b")


def test_missing_and_unreadable_files(tmp_path):
    missing = (tmp_path / "none.jpg", tmp_path / "none#1.jpg", "memory://opening/none.jpg")
    for uri in (*missing, reference(str(tmp_path / "none.tar"), offset=0, size=1, member="a")):
        assert kind_of(str(uri)) == "missing"
    for uri in (tmp_path, "a\0b", "nosuchprotocol://a/b.jpg"):
        assert kind_of(str(uri)) == "unreadable"


def test_tar_members(tmp_path):
    members = {"a/b.jpg": b"first", "ü#&=+ %.jpg": b"second" * 100, "long/" + "x" * 200: b"third"}
    path = pack(tmp_path / "x #1.tar", members.items())
    fsspec.filesystem("memory").pipe("/opening/x.tar", path.read_bytes())
    with tarfile.open(path) as tar:
        for info in tar:
            where = {"offset": info.offset_data, "size": info.size, "member": info.name}
            for container in (str(path), "memory://opening/x.tar"):
                assert read(reference(container, **where)) == members[info.name]
    assert kind_of(reference(str(path), offset=0, size=path.stat().st_size + 1, member="a")) == "truncated"
    assert kind_of(reference(str(path), offset=0, size="many", member="a")) == "unreadable"
    assert reference("x.tar", offset=512, size=1234, member="a/b.jpg") == "x.tar#offset=512&size=1234&member=a%2Fb.jpg"


@pytest.mark.parametrize(
    ("rows", "written"), [([0], "0"), ([4, 2, 3], "4,2-3"), ([1, 1], "1,1"), ("0-1,4", "0-1,4"), (range(5), "0-4")]
)
def test_rows_of_a_matrix(tmp_path, rows, written):
    matrix = np.arange(15, dtype="<f4").reshape(5, 3)
    path = tmp_path / "a #1" / "feature.bin"
    path.parent.mkdir()
    path.write_bytes(matrix.tobytes())
    fsspec.filesystem("memory").pipe("/opening/feature.bin", path.read_bytes())
    expected = matrix[[0, 1, 4] if isinstance(rows, str) else list(rows)]
    for container in (str(path), "memory://opening/feature.bin"):
        uri = reference(container, dim=3, rows=rows)
        assert uri == f"{container}#dim=3&rows={written}"
        array = np.load(io.BytesIO(read(uri)), allow_pickle=False)
        assert array.dtype == "<f4" and np.array_equal(array, expected)
        assert opening.rows_shape(uri) == expected.shape
    assert opening.rows_shape(str(path)) is None


@each_example("rows_that_are_not_there", "where, kind")
def test_rows_that_are_not_there(tmp_path, where, kind):
    path = tmp_path / "feature.bin"
    path.write_bytes(np.zeros(15, "<f4").tobytes())
    assert kind_of(reference(str(path), **where)) == kind


def table(kind: str) -> pa.Table:
    if kind == "binary":
        return pa.table({"other": range(10), "image": pa.array(CELLS, pa.large_binary())})
    structs = [{"bytes": cell, "path": "x.jpg"} for cell in CELLS]
    return pa.table({"image": pa.array(structs, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))})


def write(path: Path, content: pa.Table) -> None:
    if path.suffix == ".parquet":
        pq.write_table(content, path, row_group_size=4)
        return
    new = pa.ipc.new_stream if path.suffix == ".arrow" else pa.ipc.new_file
    with new(str(path), content.schema) as writer:
        writer.write_table(content, max_chunksize=3)


@pytest.mark.parametrize("kind", ["binary", "struct"])
@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".ipc"])
def test_cells(tmp_path, suffix, kind):
    path = tmp_path / f"x{suffix}"
    write(path, table(kind))
    remote = f"memory://opening/{kind}{suffix}"
    fsspec.filesystem("memory").pipe(f"/opening/{kind}{suffix}", path.read_bytes())
    for row in (9, 0, 1, 2, 3, 4, 8):
        assert read(reference(str(path), column="image", row=row)) == CELLS[row]
        assert read(reference(remote, column="image", row=row)) == CELLS[row]
    assert kind_of(reference(str(path), column="image", row=10)) == "missing"
    assert kind_of(reference(str(path), column="picture", row=0)) == "missing"
    if kind == "binary":
        assert kind_of(reference(str(path), column="other", row=0)) == "unreadable"
    for cut in (0, 3, path.stat().st_size // 2):
        broken = path.with_stem(f"cut-{cut}")
        broken.write_bytes(path.read_bytes()[:cut])
        assert kind_of(reference(str(broken), column="image", row=9)) in ("truncated", "unreadable")
    write(path, table(kind).slice(1))
    assert read(reference(str(path), column="image", row=0)) == CELLS[1]  # the file changed: not what was kept


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
def test_paths_in_cells_stay_in_the_folder(tmp_path, suffix):
    folder = tmp_path / "data"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "a#1.jpg").write_bytes(b"beside")
    (tmp_path / "secret").write_bytes(b"secret")
    secret = str(tmp_path / "secret")
    paths = ["sub/a#1.jpg", "../secret", secret, "sub/../../secret", "..\\secret", f"file://{secret}", "none.jpg", None]
    cells = [{"bytes": None, "path": path} for path in paths]
    path = folder / f"x{suffix}"
    write(path, pa.table({"image": pa.array(cells, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))}))
    uris = [reference(str(path), column="image", row=row) for row in range(len(paths))]
    assert read(uris[0]) == b"beside"
    assert [kind_of(uri) for uri in uris[1:]] == ["unreadable"] * 5 + ["missing"] * 2


def test_offsets_of_a_broken_arrow_file_are_not_followed(tmp_path):
    path = tmp_path / "x.arrow"
    write(path, table("binary"))
    first = struct.pack("<4q", 0, 9, 27, 54)
    assert path.read_bytes().count(first) == 1
    path.write_bytes(path.read_bytes().replace(first, struct.pack("<4q", 0, 9, 1 << 20, 54)))
    assert kind_of(reference(str(path), column="image", row=1)) == "unreadable"

import hashlib

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.corpus.schema import SCHEMA_VERSION, SCHEMAS
from pipeline.corpus.table import Table, read_shard, shard_problem, write_json, write_shard
from pipeline.errors import UsageError
from pipeline.storage.files import write_file
from tests.corpora import caption, write_corpus

CAPTIONS = SCHEMAS["captions"]
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
ROWS = st.lists(st.fixed_dictionaries(dict.fromkeys(CAPTIONS.names, TEXT)), max_size=40)


@given(rows=ROWS)
def test_what_is_written_is_read(rows, tmp_path_factory):
    path = tmp_path_factory.mktemp("shard") / "part.arrow"
    entry = write_shard(path, pa.Table.from_pylist(rows, CAPTIONS))
    assert read_shard(path, entry).to_pylist() == rows
    assert shard_problem(path, entry) is None
    first = path.read_bytes()
    write_shard(path, pa.Table.from_pylist(rows, CAPTIONS))
    assert path.read_bytes() == first


@pytest.mark.parametrize("before", [{}, {"file": b"whole"}])
def test_a_failed_write_leaves_what_was_there(tmp_path, before):
    for name, data in before.items():
        (tmp_path / name).write_bytes(data)
    with pytest.raises(RuntimeError), write_file(tmp_path / "file") as stream:
        stream.write(b"half")
        raise RuntimeError
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_table_that_is_not_complete_or_of_another_version_is_refused(tmp_path):
    table = Table(write_corpus(tmp_path, captions=[[caption("a", "x")]]), "captions")
    write_json(table.folder / "manifest.json", table.manifest | {"schema_version": 99})
    with pytest.raises(UsageError, match="schema version 99, this program reads"):
        Table(tmp_path, "captions")
    (table.folder / "manifest.json").unlink()
    with pytest.raises(UsageError, match="is not complete"):
        Table(tmp_path, "captions")


def test_schemas_are_those_of_version_1():
    """A hash of each serialized schema. Shards hold these bytes: if one changes, SCHEMA_VERSION has to change, too."""
    assert SCHEMA_VERSION == 1
    hashes = {name: hashlib.sha256(schema.serialize()).hexdigest()[:16] for name, schema in SCHEMAS.items()}
    assert hashes == {
        "items": "83b7673a7852bb95",
        "captions": "f76779aa5e8bd9e4",
        "descriptions": "f05f7a2cf0ca67ef",
        "translations": "b50eef078767d453",
        "training": "75d9061786c5c017",
    }

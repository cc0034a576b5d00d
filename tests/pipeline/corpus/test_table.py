import json

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.corpus import table as corpora
from pipeline.corpus.schema import SCHEMAS
from pipeline.errors import EnvironmentTrouble, UsageError

CAPTIONS = SCHEMAS["captions"]
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
ROWS = st.lists(
    st.fixed_dictionaries({field.name: TEXT for field in CAPTIONS}),
    max_size=40,
)


def caption_rows(count):
    return [dict.fromkeys(CAPTIONS.names, "x") | {"caption_id": str(i), "item_id": str(i)} for i in range(count)]


def write_table(corpus, shards):
    """A complete table `captions` of the given shards, each a list of rows."""
    (corpus / "captions").mkdir(parents=True)
    entries = [
        corpora.write_shard(
            corpus / "captions" / corpora.shard_name(i, len(shards)), pa.Table.from_pylist(rows, CAPTIONS)
        )
        for i, rows in enumerate(shards)
    ]
    corpora.write_manifest(
        corpus,
        "captions",
        settings={},
        fingerprint="f",
        tools={},
        parents={},
        shards=entries,
        failures=[{"id": "ü", "error": "unreadable"}],
    )
    return corpora.Table(corpus, "captions")


@given(rows=ROWS)
def test_what_is_written_is_read(rows, tmp_path_factory):
    path = tmp_path_factory.mktemp("shard") / "part.arrow"
    entry = corpora.write_shard(path, pa.Table.from_pylist(rows, CAPTIONS))
    assert corpora.read_shard(path, entry).to_pylist() == rows
    assert corpora.shard_problem(path, entry) is None
    first = path.read_bytes()
    corpora.write_shard(path, pa.Table.from_pylist(rows, CAPTIONS))
    assert path.read_bytes() == first


def test_rows_come_in_order_over_shards(tmp_path):
    rows = caption_rows(2_500)
    table = write_table(tmp_path, [rows[:2_100], [], rows[2_100:]])
    assert list(table.rows()) == rows
    assert max(batch.num_rows for batch in table.batches()) <= corpora.BATCH_ROWS
    assert table.failures() == [{"id": "ü", "error": "unreadable"}]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "is missing"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "bytes, its manifest says"),
        (lambda path: path.write_bytes(b"\0" * path.stat().st_size), "checksum"),
    ],
)
def test_a_damaged_shard_is_named_with_a_remedy(tmp_path, damage, message):
    table = write_table(tmp_path, [caption_rows(3)])
    damage(table.shard_path(0))
    with pytest.raises(EnvironmentTrouble) as caught:
        table.shard(0, check=True)
    assert message in str(caught.value)
    assert "captions/part-00000-of-00001.arrow" in str(caught.value)
    assert str(caught.value).endswith("run --stage ingest again")
    assert ("delete it" in str(caught.value)) == table.shard_path(0).exists()


def test_a_failed_write_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), corpora.atomic_writer(tmp_path / "file") as stream:
        stream.write(b"half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_keeps_what_was_there(tmp_path):
    (tmp_path / "file").write_bytes(b"whole")
    with pytest.raises(RuntimeError), corpora.atomic_writer(tmp_path / "file") as stream:
        stream.write(b"half")
        raise RuntimeError
    assert (tmp_path / "file").read_bytes() == b"whole"


def test_a_table_without_manifest_is_not_complete(tmp_path):
    write_table(tmp_path, [caption_rows(1)])
    (tmp_path / "captions" / "manifest.json").unlink()
    with pytest.raises(UsageError, match="is not complete"):
        corpora.Table(tmp_path, "captions")


def test_another_schema_version_is_refused(tmp_path):
    write_table(tmp_path, [caption_rows(1)])
    path = tmp_path / "captions" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": 99}))
    with pytest.raises(UsageError, match="schema version 99, this program reads"):
        corpora.Table(tmp_path, "captions")


def test_damaged_json_ends_the_run_with_a_remedy(tmp_path):
    (tmp_path / "manifest.json").write_text('{"half')
    with pytest.raises(EnvironmentTrouble, match="is damaged"):
        corpora.read_json(tmp_path / "manifest.json")


def test_schemas_have_the_columns_promised_to_readers():
    promised = {
        "items": "item_id media_type uri sha256 width height num_frames duration_s split source license",
        "captions": "caption_id item_id language text origin split",
        "descriptions": "item_id view text language captioner revision prompt_id decoding finish_reason prompt_tokens "
        "completion_tokens sha256",
    }
    for table, columns in promised.items():
        assert set(columns.split()) <= set(SCHEMAS[table].names)

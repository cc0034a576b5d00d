"""`--stage export`: the tables of a corpus as Parquet, to publish them, with a card and a Croissant file.

    shard i of TABLE → its rows without places of this machine → FOLDER/TABLE/SPLIT-0000i-of-0000N.parquet
    → README.md: a config for each table, the splits named; croissant.json → --push: uploaded to the Hub

Files of the same number hold rows of the same items, so tables are exported shard by shard. Nothing depends on the
clock. Started again, it writes only what is missing or was made from another version of its shard.
"""

import argparse
import dataclasses
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.card.card import CARD, card_values, render
from pipeline.card.croissant import CROISSANT, croissant
from pipeline.card.markdown import public_id, public_uri, without_folders
from pipeline.card.numbers import count_tables
from pipeline.corpus.schema import SCHEMAS
from pipeline.corpus.table import MADE_BY, Table, refuse_others, table_rows, write_json
from pipeline.errors import EnvironmentTrouble, UsageError
from pipeline.hashing import canonical_json
from pipeline.media.features import MAGIC
from pipeline.options import option, read_options
from pipeline.storage.files import path_on_disk, read_ahead, write_file
from stages import verify
from stages.driver import RunOptions, say

PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])  # how `datasets.Image()` is stored
FEATURES = {"info": {"features": {"media": {"_type": "Image"}}}}  # what tells `datasets` and the Hub's viewer
PICTURES, ROWS = 100, 10_000  # of a row group; the viewer reads one at a time
AT_ONCE = 4  # shards
MADE_FROM = b"leccr.made_from"  # in the metadata of a file: checksums of its shard and of the one that has the splits
PUBLIC = {"uri": public_uri} | dict.fromkeys(
    ("source", "license", "captioner", "translator", "revision"), without_folders
)


def repository(text: str) -> str:
    """The name of a dataset on the Hub. Raises ValueError if it cannot be one."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(text)
    except HFValidationError as error:
        raise ValueError(str(error)) from error
    if "/" not in text:
        raise ValueError(f"{text!r} is not OWNER/NAME")
    return text


@dataclasses.dataclass(frozen=True)
class ExportOptions:
    """Where a corpus is exported to."""

    format: str = option("parquet", "format of the files", choices=("parquet",))
    to: Path | None = option(None, "folder of the export: new, or of an earlier one", parse=path_on_disk, metavar="DIR")
    push: str = option(
        "", "verify the corpus first, and upload its export to this dataset on the Hub", parse=repository,
        metavar="OWNER/NAME",
    )  # fmt: skip


def main(parsed: argparse.Namespace, beam_arguments: list[str]) -> int:
    """Run the stage; returns the exit status."""
    corpus, options = read_options(RunOptions, parsed).corpus, read_options(ExportOptions, parsed)
    if options.to is None:
        raise UsageError("--stage export needs --to FOLDER, where it writes the export")
    if options.push and verify.main(parsed, beam_arguments):
        return 1
    export(corpus, options.to, options.push)
    if options.push:
        push(options.to, options.push)
    return 0


def export(corpus: Path, folder: Path, repo: str = "") -> None:
    """Write or complete an export.

    Args:
        corpus: The corpus. Every table that it has must be complete.
        folder: Where the export goes.
        repo: The dataset on the Hub that it is for, which its card then names.

    Raises:
        UsageError: A table is not complete, or the folder holds something else.
    """
    tables = {name: Table(corpus, name) for name in MADE_BY if (corpus / name).is_dir()}
    if not tables:
        raise UsageError(f"{corpus} holds no table. Expected a corpus folder with {', '.join(MADE_BY)}")
    refuse_others(folder, "--to", (*MADE_BY, CARD, CROISSANT))
    data_files, schemas = {}, {}
    for name, table in tables.items():
        exporter = Exporter(table, tables, folder / name)
        rows = exporter.write()
        say(f"{name:<14}" + (", ".join(f"{split} {count:,}" for split, count in sorted(rows.items())) or "no rows"))
        if rows:  # `datasets` cannot make a split of no rows
            data_files[name] = [{"split": split, "path": f"{name}/{split}-*.parquet"} for split in sorted(rows)]
            schemas[name] = exporter.schema
    described = {name: table for name, table in tables.items() if name in SCHEMAS}
    title = repo.split("/")[-1] or corpus.absolute().name
    values = card_values(title, described, count_tables(described), data_files, repo or str(folder.name))
    with write_file(folder / CARD) as stream:
        stream.write(render(values).encode())
    write_json(folder / CROISSANT, croissant(values, schemas, repo))
    say(f"card: {folder / CARD}")


def push(folder: Path, repo: str) -> None:
    """Upload an export. What an earlier, killed upload has brought to the Hub is not sent again.

    Raises:
        EnvironmentTrouble: The Hub refuses it or cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    shards = [f"{name}/*.parquet" for name in MADE_BY]
    try:
        api = HfApi(library_name="leccr")
        url = api.create_repo(repo, repo_type="dataset", private=True, exist_ok=True)
        api.upload_folder(
            repo_id=repo,
            folder_path=folder,
            repo_type="dataset",
            commit_message="Upload a corpus",
            allow_patterns=[*shards, CARD, CROISSANT],
            delete_patterns=shards,  # of an earlier version of the corpus
        )
    # OSError, and the base of the errors of the Hub's HTTP client.
    except HfHubHTTPError.__bases__ as error:  # type: ignore[misc]
        raise EnvironmentTrouble(
            f"{folder} was not uploaded to {repo}: {str(error).rstrip('.')}. `hf auth login` or $HF_TOKEN sets who you "
            "are. Run the same command again to resume"
        ) from error
    say(f"uploaded: {url} (a new dataset is private; its settings there change that)")


class Exporter:
    """Writes the files of a table.

    Attributes:
        schema: Their columns.

    Args:
        table: The table.
        tables: All tables of the corpus.
        folder: Where the files go.
    """

    def __init__(self, table: Table, tables: Mapping[str, Table], folder: Path):
        self._table, self._folder = table, folder
        self.schema = table.shard(0).schema
        parent = {"training": "training", "vectors": "training"}.get(table.name, "items")
        self._items = table if "split" in self.schema.names else tables[parent]
        self._has_pictures = "media" in self.schema.names and not _first_media(table).startswith(MAGIC)
        if self._has_pictures:
            columns = self.schema.set(self.schema.get_field_index("media"), pa.field("media", PICTURE))
            self.schema = columns.with_metadata({"huggingface": canonical_json(FEATURES)})

    def write(self) -> Counter[str]:
        """Write the files that are missing, delete others; returns the number of rows of each split."""
        self._folder.mkdir(parents=True, exist_ok=True)
        rows, names = Counter[str](), set()
        for shard in read_ahead(self._write_shard, range(self._table.num_shards), AT_ONCE):
            for split, (name, count) in shard.items():
                rows[split] += count
                names.add(name)
        for path in self._folder.iterdir():
            if path.name not in names:  # of an earlier version of the corpus, or half-written
                path.unlink()
        return rows

    def _write_shard(self, index: int) -> dict[str, tuple[str, int]]:
        """Write the files of a shard; returns their names and rows, by split."""
        table, items = self._table, self._items
        shard, parent = table.shard(index), items.shard(index).select(["item_id", "split"])
        made_from = " ".join(of.manifest["shards"][index]["sha256"] for of in (table, items))
        splits = parent["split"].take(pc.index_in(shard["item_id"], value_set=parent["item_id"].combine_chunks()))
        files = {}
        for split in sorted(splits.unique().to_pylist()):
            public, rows = re.sub(r"\W", "_", split), pc.equal(splits, split)
            name = f"{public}-{index:05d}-of-{table.num_shards:05d}.parquet"
            files[public] = (name, pc.sum(rows).as_py())
            path = self._folder / name
            if not path.exists() or pq.read_schema(path).metadata.get(MADE_FROM) != made_from.encode():
                self._write_file(path, shard.filter(rows), made_from)
        return files

    def _write_file(self, path: Path, rows: pa.Table, made_from: str) -> None:
        schema = self.schema.with_metadata({**(self.schema.metadata or {}), MADE_FROM: made_from})
        # Chunks by content, so that the Hub stores again only what has changed; an index of pages for its viewer.
        storage = {"use_content_defined_chunking": True, "write_page_index": True}
        size = PICTURES if self._has_pictures else ROWS
        with write_file(path) as stream, pq.ParquetWriter(stream, schema, **storage) as writer:
            for start in range(0, rows.num_rows, size):
                part = table_rows(rows.slice(start, size))
                writer.write_table(pa.Table.from_pylist([self._public(row) for row in part], schema))

    def _public(self, row: dict[str, Any]) -> dict[str, Any]:
        """A row without places of this machine, its pictures as `datasets` has them."""
        item_id = row["item_id"]
        row["item_id"] = public_id(item_id)
        for text in (row, *row.get("captions", ())):
            if "caption_id" in text:
                text["caption_id"] = row["item_id"] + text["caption_id"].removeprefix(item_id)
        for name in PUBLIC.keys() & row.keys():
            row[name] = PUBLIC[name](row[name])
        if self._has_pictures:
            row["media"] = row["media"] and {"bytes": row["media"]}
        return row


def _first_media(table: Table) -> bytes:
    """The first that the table has: whether they are pictures, or features."""
    columns = (table.shard(index)["media"].drop_null() for index in range(table.num_shards))
    return next((column[0].as_py() for column in columns if len(column)), MAGIC)

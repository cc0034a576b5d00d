"""Read a corpus with datasets, polars and duckdb; the project itself is not needed.

python examples/read_corpus.py demo/corpus
"""

import sys
from pathlib import Path

import datasets
import duckdb
import polars
import pyarrow


def with_datasets(corpus: Path) -> datasets.Dataset:
    """The descriptions, memory-mapped: nothing is loaded before it is used."""
    return datasets.load_dataset("arrow", data_files=f"{corpus}/descriptions/*.arrow", split="train")


def with_polars(corpus: Path) -> polars.DataFrame:
    """How many words each view has on average."""
    shards = sorted(corpus.glob("descriptions/*.arrow"))
    descriptions = polars.concat([polars.read_ipc_stream(shard) for shard in shards])
    words = polars.col("text").str.split(" ").list.len()
    return descriptions.group_by("view").agg(words.mean().alias("words")).sort("view")


def with_duckdb(corpus: Path) -> list[tuple[str, str]]:
    """Items with their short description, joined by id. Shard i of every table holds the same items."""
    items, descriptions = read_table(corpus, "items"), read_table(corpus, "descriptions")
    connection = duckdb.connect()
    connection.register("items", items)
    connection.register("descriptions", descriptions)
    return connection.sql(
        "select item_id, text from items join descriptions using (item_id) where view = 'short' order by item_id"
    ).fetchall()


def read_table(corpus: Path, name: str) -> pyarrow.Table:
    """One table of a corpus as a whole, memory-mapped."""
    shards = (pyarrow.memory_map(str(path)) for path in sorted(corpus.glob(f"{name}/*.arrow")))
    return pyarrow.concat_tables([pyarrow.ipc.open_stream(shard).read_all() for shard in shards])


if __name__ == "__main__":
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "demo/corpus")
    print(with_datasets(folder)[0])
    print(with_polars(folder))
    for item_id, text in with_duckdb(folder)[:3]:
        print(f"{item_id}: {text}")

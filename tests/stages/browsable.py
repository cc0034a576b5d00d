"""A corpus of five items in two shards with every table that can be browsed, and a card."""

import numpy as np
import pyarrow as pa
from PIL import Image

from pipeline.corpus.schema import SCHEMAS, SCORES
from pipeline.corpus.table import shard_name, write_manifest, write_shard
from tests.stages.fake_finder import ITEMS

EVIL = "<script>window.hit=3</script>"
CARD = (
    "---\nlicense: mit\n---\n\n# The squares\n\n![far](http://example.com/a.png) <img src='http://example.com/b.png'>\n"
)
TABLES = ("items", "captions", "descriptions", "translations")


def rows_of(item_id):
    """The item's row in each of TABLES."""
    caption = {"caption_id": f"{item_id}#0", "item_id": item_id}
    scores = {**dict.fromkeys(SCORES), "quality": 0.75, "meaning": 0.5}
    text = f"objects of {item_id} {EVIL}"
    return (
        dict(item_id=item_id, media_type="image", uri=f"/nowhere/{item_id}", split="test"),
        dict(**caption, language="en", text=f"caption {item_id}", origin="human", split="test"),
        dict(item_id=item_id, view="objects", text=text, language="en"),
        dict(
            **caption, source_language="en", source_text=f"caption {item_id}", target_language="de",
            text=f"Bildunterschrift {item_id}", scores=scores, flags=["copied"],
        ),
    )  # fmt: skip


def write_browsable(folder, shards=2):
    """The items of the fake engine; returns the folder."""
    by_table = zip(*(rows_of(item_id) for item_id in ITEMS), strict=True)
    cut = -(-len(ITEMS) // shards)
    for table, rows in zip(TABLES, by_table, strict=True):
        (folder / table).mkdir(parents=True)
        entries = [
            write_shard(
                folder / table / shard_name(index, shards),
                pa.Table.from_pylist(rows[index * cut : (index + 1) * cut], SCHEMAS[table]),
            )
            for index in range(shards)
        ]
        write_manifest(folder, table, settings={}, fingerprint="0", tools={}, parents={}, shards=entries, failures=[])
    (folder / "README.md").write_text(CARD, "utf-8")
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(folder / "contact-sheet.png")
    Image.new("RGB", (900, 600), ITEMS["red.jpg"][0]).save(folder / "red.jpg")  # an original
    return folder

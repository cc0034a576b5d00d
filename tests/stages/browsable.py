"""A corpus of five items in two shards with every table that can be browsed, and a card."""

import numpy as np
import pyarrow as pa
from PIL import Image

from pipeline.corpus import table as corpora
from pipeline.corpus.schema import SCHEMAS, SCORES
from tests.stages.fake_finder import ITEMS

EVIL = "<script>window.hit=3</script>"
CARD = (
    "---\nlicense: mit\n---\n\n# The squares\n\n![far](http://example.com/a.png) <img src='http://example.com/b.png'>\n"
)


def write_browsable(folder, shards=2):
    """The items of the fake engine; returns the folder."""
    ids = list(ITEMS)
    rows = {"items": [], "captions": [], "descriptions": [], "translations": []}
    for item_id in ids:
        item = {
            "item_id": item_id,
            "media_type": "image",
            "uri": f"/nowhere/{item_id}",
            "sha256": 64 * "0",
            "width": 8,
            "height": 8,
            "num_frames": 1,
            "split": "test",
            "source": "made up",
            "license": "",
        }
        caption = {
            "caption_id": f"{item_id}#0",
            "item_id": item_id,
            "language": "en",
            "text": f"caption {item_id}",
            "origin": "human",
            "split": "test",
        }
        described = {
            "item_id": item_id,
            "view": "objects",
            "text": f"objects of {item_id} {EVIL}",
            "language": "en",
            "captioner": "",
            "revision": "",
            "prompt_id": "",
            "decoding": "",
            "finish_reason": "stop",
            "flags": [],
            "frame_times_s": [],
            "sha256": 64 * "0",
        }
        scores = {**dict.fromkeys(SCORES), "quality": 0.75, "meaning": 0.5}
        translated = {
            "caption_id": f"{item_id}#0",
            "item_id": item_id,
            "source_table": "captions",
            "source_language": "en",
            "source_text": caption["text"],
            "target_language": "de",
            "text": f"Bildunterschrift {item_id}",
            "translator": "",
            "revision": "",
            "decoding": "",
            "scores": scores,
            "flags": ["copied"],
        }
        for table, row in zip(rows, (item, caption, described, translated), strict=True):
            rows[table].append(row)
    cut = -(-len(ids) // shards)
    for table, all_rows in rows.items():
        (folder / table).mkdir(parents=True)
        entries = [
            corpora.write_shard(
                folder / table / corpora.shard_name(index, shards),
                pa.Table.from_pylist(all_rows[index * cut : (index + 1) * cut], SCHEMAS[table]),
            )
            for index in range(shards)
        ]
        corpora.write_manifest(
            folder, table, stage="made", settings={}, fingerprint="0", tools={}, parents={}, shards=entries, failures=[]
        )
    (folder / "README.md").write_text(CARD, "utf-8")
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(folder / "quality.png")
    return folder

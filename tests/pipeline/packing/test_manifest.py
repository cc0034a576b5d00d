"""Sizes of the splits and pairs dropped, against counting row by row."""

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.corpus.table import Table
from pipeline.packing.filters import Filters
from pipeline.packing.manifest import dropped_pairs, split_sizes
from tests.corpora import deal_corpus, description, item, translation, write_table

FLAGS = st.sets(st.sampled_from(["numbers", "copied", "repeated", "preamble"]), max_size=3)
PAIRS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c"]), st.sampled_from(["de", "cs"]), FLAGS, st.sampled_from([None, 0.1, 0.6])
    ),
    max_size=8,
)


@settings(max_examples=40)
@given(PAIRS, PAIRS, st.integers(1, 3))
def test_dropped_pairs(tmp_path_factory, first, second, shard_size):
    filters, folders, expected = Filters({"cs": {"meaning": 0.5, "copied": None}}), [], {}
    for number, pairs in enumerate((first, second)):
        folder = tmp_path_factory.mktemp("sums") / f"c{number}"
        rows = [
            translation(f"{item_id}#short", target, source_table="descriptions", flags=sorted(flags), meaning=meaning)
            for item_id, target, flags, meaning in pairs
        ]
        described = [description("a", "A.", flags=["refusal"]), description("b", "B.", flags=["cut"])]
        items = [item(folder, item_id) for item_id in ("a", "b", "c")]
        folders.append(deal_corpus(folder, shard_size, items=items, descriptions=described, translations=rows))
        for row in rows:
            rules = [*filters.rules_against(row), *(["refusal"] if row["item_id"] == "a" else [])]
            counts = expected.setdefault(row["target_language"], {"pairs": 0, "kept": 0})
            counts["pairs"] += 1
            counts["kept"] += not rules
            for rule in rules:
                counts[rule] = counts.get(rule, 0) + 1
    assert dropped_pairs(folders, filters) == expected
    assert list(dropped_pairs(folders, filters)) == sorted(expected)


def test_split_sizes(tmp_path):
    def row(item_id, split, captions, descriptions):
        text = {"caption_id": "", "language": "en", "text": "", "origin": "human", "quality": 1.0}
        return {
            **{"item_id": item_id, "split": split, "media_type": "image", "media": b"x", "num_frames": 1},
            **{"uri": "", "sha256": "", "source": "", "license": "", "captions": [text] * captions},
            "descriptions": [{"view": "short", "text": ""}] * descriptions,
        }

    parts = [[row("a", "train", 2, 0), row("b", "val", 0, 1)], [], [row("c", "train", 1, 3)]]
    write_table(tmp_path, "training", parts)
    table = Table(tmp_path, "training")
    assert split_sizes(table.shard_paths()) == {
        "train": {"items": 2, "captions": 3, "descriptions": 3},
        "val": {"items": 1, "captions": 0, "descriptions": 1},
    }

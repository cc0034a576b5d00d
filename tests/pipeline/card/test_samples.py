"""Samples of a corpus: evenly spread, each with its own texts."""

from pipeline.card.samples import read_samples
from pipeline.corpus.table import Table
from tests.corpora import caption, description, item, training, write_corpus

SIZES = (7, 0, 40, 1, 52)


def test_samples_are_spread_over_all_shards_and_keep_their_own_texts(tmp_path):
    shards = [[item(f"{shard}-{i}.png") for i in range(size)] for shard, size in enumerate(SIZES)]
    texts = [[description(row["item_id"], f"about {row['item_id']}") for row in rows] for rows in shards]
    captions = [[caption(row["item_id"], f"human on {row['item_id']}") for row in rows] for rows in shards]
    corpus = write_corpus(tmp_path, items=shards, descriptions=texts, captions=captions)
    tables = {name: Table(corpus, name) for name in ("items", "descriptions", "captions")}
    ids = [row["item_id"] for rows in shards for row in rows]
    samples = read_samples(tables, 10)
    assert [sample.item["item_id"] for sample in samples] == [ids[i] for i in range(5, 100, 10)]
    assert [sample.text for sample in samples] == [f"about {sample.item['item_id']}" for sample in samples]
    assert all(sample.first_captions == f"en: human on {sample.item['item_id']}" for sample in samples)
    assert [sample.item["item_id"] for sample in read_samples(tables, 1_000)] == ids


def test_samples_of_training_shards_have_the_first_caption_of_each_language(tmp_path):
    rows = [training(f"{i}.png", {"en": "first", "de": "zuerst"}) for i in range(3)]
    for row in rows:
        row["captions"].append({**row["captions"][0], "caption_id": "other", "text": "second"})
    samples = read_samples({"training": Table(write_corpus(tmp_path, training=[rows]), "training")}, 2)
    assert [sample.item["item_id"] for sample in samples] == ["0.png", "2.png"]
    assert samples[0].first_captions == "de: zuerst — en: first" and samples[0].text == "short of 0.png"

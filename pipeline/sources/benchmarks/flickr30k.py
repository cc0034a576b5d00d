"""Flickr30k with its English captions, in Karpathy's splits.

dataset_flickr30k.json      the splits and the captions; pictures may lie anywhere below the folder
"""

from pipeline.sources.benchmarks.files import read_karpathy
from pipeline.sources.benchmarks.importer import Importer

COUNTS = {"train": 29_000, "val": 1_014, "test": 1_000}


def read_set(importer: Importer) -> None:
    """Add the set."""
    path = importer.files.text("dataset_flickr30k.json")
    if path is None:
        advice = "It is in Karpathy's caption_datasets.zip. Without it, --source folder takes a table of captions."
        raise importer.absent("dataset_flickr30k.json", advice)
    images = read_karpathy(path)
    splits = {name: split for name, _, split, _ in images}
    importer.count_splits("pictures", splits, COUNTS)
    for name, _, _, sentences in images:
        for text in sentences:
            importer.add_text(name, "en", text)
    importer.add_items(splits)

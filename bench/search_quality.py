"""How well the embedded default finds photographs: human captions as queries, in English and in Portuguese.

    python bench/search_quality.py [--photos FOLDER]

FOLDER holds photographs and captions.jsonl (COCO photos beside the checkout by default). Photographs are described by
the embedded describer and indexed with `--checkpoint embedded`; the captions serve only as queries.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.common import DATA, machine, stage
from pipeline.translation.fast_translate import EmbeddedEngine
from pipeline.translation.translator import Translated
from stages import index
from stages.retrieval.engine import Index
from stages.retrieval.index_reader import Generation

CUTS = (1, 5, 10)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, default=DATA / "coco_cc_by", help="folder of photographs and captions")
    options = parser.parse_args(argv)
    if not (options.photos / "captions.jsonl").is_file():
        parser.error(f"--photos: got {options.photos}, expected a folder with photographs and captions.jsonl")
    with tempfile.TemporaryDirectory() as temporary:
        corpus, index_folder = Path(temporary) / "corpus", Path(temporary) / "index"
        stage("captions", corpus, "--input", options.photos, "--captioner", "embedded")
        stage("pack", corpus)
        paths = ["--data", str(corpus), "--output", str(index_folder)]
        index.main(["--checkpoint", "embedded", *paths, "--no-captions"])  # which are the queries
        finder = Index.open(index_folder)
        english = queries(options.photos, index_folder)
        query_sets = {"English, by people": english, "Portuguese, translated": translated(english)}
        print(f"{len(finder):,} photographs, {len(english):,} queries; {machine()}\n")
        print("| queries | " + " | ".join(f"R@{cut}" for cut in CUTS) + " | median rank |")
        print(f"| --- |{' ---: |' * (len(CUTS) + 1)}")
        for name, pairs in query_sets.items():
            item_ranks = ranks(finder, pairs)
            cells = [f"{np.mean(item_ranks <= cut):.1%}" for cut in CUTS]
            print(f"| {name} | {' | '.join(cells)} | {np.median(item_ranks):.0f} |")
        print(f"| a random order | {' | '.join(f'{cut / len(finder):.1%}' for cut in CUTS)} | {len(finder) / 2:.0f} |")


def queries(photos: Path, index_folder: Path) -> list[tuple[str, str]]:
    """(caption, item id of the photograph that it is of)."""
    by_name = {Path(item_id).name: item_id for item_id in Generation.open(index_folder).items["item_id"].to_pylist()}
    rows = map(json.loads, (photos / "captions.jsonl").read_text(encoding="utf-8").splitlines())
    return [(text, by_name[Path(row["file"]).name]) for row in rows for text in row["captions"]]


def translated(pairs: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """The queries in Portuguese, without those that could not be translated."""
    results = EmbeddedEngine("en-pt").translate([text for text, _ in pairs], "en", "pt")
    items = [item for _, item in pairs]
    return [(result.text, item) for result, item in zip(results, items, strict=True) if isinstance(result, Translated)]


def ranks(finder: Index, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
    """Rank, from 1, of each query's photograph among all."""
    results = finder.find([text for text, _ in pairs], len(finder))
    return np.array(
        [next(hit.rank for hit in hits if hit.item_id == item) for hits, (_, item) in zip(results, pairs, strict=True)]
    )


if __name__ == "__main__":
    main()

"""Describe a folder of photos, index it, and search it in several languages.

python examples/search_photos.py PHOTOS OUTPUT "eine Katze" "猫"
"""

import sys
from pathlib import Path

from beam_runner import run
from stages import index
from stages.retrieval.engine import Hit, Index


def build_index(photos: Path, output: Path) -> Path:
    """Describe the photos with the embedded describer and index them; returns the folder of the index.

    Called again, it resumes where it was interrupted. It does not see photos added to the folder since: run
    `--stage ingest --overwrite` on the corpus first. Known photos then take their descriptions from the cache.
    """
    corpus, folder = output / "corpus", output / "index"
    for stage in (["captions", "--input", str(photos), "--captioner", "embedded"], ["pack"]):
        if status := run(["--stage", *stage, "--output", str(corpus)]):
            raise SystemExit(status)
    index.main(["--checkpoint", "embedded", "--data", str(corpus), "--output", str(folder)])
    return folder


def search(folder: Path, queries: list[str], k: int = 3) -> dict[str, list[Hit]]:
    """The best `k` items for each query."""
    finder = Index.open(folder)
    return dict(zip(queries, finder.find(queries, k), strict=True))


if __name__ == "__main__":
    if len(sys.argv) < 4:
        raise SystemExit(__doc__)
    photos, output, *queries = sys.argv[1:]
    for query, hits in search(build_index(Path(photos), Path(output)), queries).items():
        print(query)
        for hit in hits:
            print(f"  {hit.score:.3f}  {hit.item_id}")

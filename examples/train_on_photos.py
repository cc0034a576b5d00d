"""Train on your own photos, with English captions next to them or none: describe, translate, pack, train, query.

    python examples/train_on_photos.py PHOTOS OUTPUT

The demo recipe trains small layers on frozen encoders from Python wheels, without a download. For a real model, give
`--recipe base`, a held-out split `val`, and `media=` and `text=` of your choice: see docs/training.md.
"""

import sys
from pathlib import Path

from beam_runner import run
from model.modeling import LeccrModel
from model.processing import LeccrProcessor
from stages import train


def prepare(photos: Path, corpus: Path) -> None:
    """Describe the photos, translate the descriptions into Portuguese, pack the training shards."""
    for stage in (
        ["captions", "--input", str(photos), "--captioner", "embedded"],
        ["translate", "--text", "descriptions", "--languages", "pt"],
        ["pack"],
    ):
        if status := run(["--stage", *stage, "--output", str(corpus)]):
            raise SystemExit(status)


def train_model(corpus: Path, output: Path, *settings: str) -> Path:
    """Train with the demo recipe and further `key=value` settings; returns the folder of the best model."""
    train.main(["--recipe", "demo", "--data", str(corpus), "--output", str(output), *settings])
    return output / "best"


def encode_queries(checkpoint: Path, queries: list[str]) -> list[list[float]]:
    """One unit-length vector per query."""
    model, processor = LeccrModel.from_pretrained(checkpoint), LeccrProcessor.from_pretrained(checkpoint)
    return model.eval().encode_text(processor.texts(queries)).tolist()


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    photos, output = map(Path, sys.argv[1:])
    prepare(photos, output / "corpus")
    checkpoint = train_model(output / "corpus", output / "run")
    print([vector[:3] for vector in encode_queries(checkpoint, ["um gato", "a cat"])])

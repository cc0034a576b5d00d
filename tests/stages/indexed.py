"""A small model on disk and corpora indexed with it, for the tests of what searches."""

from pathlib import Path

from stages import index
from tests.model.towers import processor, tiny_model
from tests.stages.corpora import write_training_corpus


def write_model(folder: Path, **settings) -> Path:
    of = processor()
    tiny_model(of.vocabulary, **settings).save_pretrained(folder)
    of.save_pretrained(folder)
    return folder


def write_indexed(home: Path, items: int = 12, *arguments: str, **corpus) -> tuple[Path, Path, Path]:
    """Model, corpus and index in `home`."""
    model = write_model(home / "model")
    photos = write_training_corpus(home / "photos", items, **corpus)
    done = index.main(["--checkpoint", str(model), "--data", str(photos), "--output", str(home / "index"), *arguments])
    assert done == 0
    return model, photos, home / "index"

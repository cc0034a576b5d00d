"""A small model on disk and corpora indexed with it, for the tests of what searches."""

from pathlib import Path

import numpy as np

from stages import index
from stages.retrieval.encoders import PartRows
from tests.model.towers import processor, tiny_model
from tests.stages.corpora import write_training_corpus


def write_model(folder: Path, **settings) -> Path:
    of = processor()
    tiny_model(of.vocabulary, **settings).save_pretrained(folder)
    of.save_pretrained(folder)
    return folder


def item_rows(space, frames, descriptions) -> list[np.ndarray]:
    """The rows [R,E] of each item; `descriptions` are those of the space's views, "" where one is absent."""
    items_NE, slots_NKE = space.items(frames, descriptions)
    names = space.slot_views or [""] * max(map(len, descriptions))
    texts = [(n, name, text) for n, of in enumerate(descriptions) for name, text in zip(names, of) if text]  # noqa: B905
    text_ME = space.descriptions([text for *_, text in texts]) if texts else items_NE[:0]
    views = PartRows(text_ME, np.array([n for n, *_ in texts], np.int64), [name for _, name, _ in texts])
    slots_RE = slots_NKE.reshape(-1, items_NE.shape[1])
    numbers_R = np.repeat(np.arange(len(items_NE)), slots_NKE.shape[1])
    rows_RE, counts_N = space.rows(items_NE, PartRows(slots_RE, numbers_R, [*names] * len(items_NE)), views)
    return np.split(rows_RE, np.cumsum(counts_N)[:-1])


def write_indexed(home: Path, items: int = 12, *arguments: str, **corpus) -> tuple[Path, Path, Path]:
    """Model, corpus and index in `home`."""
    model = write_model(home / "model")
    photos = write_training_corpus(home / "photos", items, **corpus)
    done = index.main(["--checkpoint", str(model), "--data", str(photos), "--output", str(home / "index"), *arguments])
    assert done == 0
    return model, photos, home / "index"

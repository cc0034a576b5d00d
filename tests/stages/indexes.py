"""Small vector indexes for tests: records, vectors, and NumPy's own answers to compare with."""

import faiss
import numpy as np
import pyarrow as pa

from stages.retrieval.index_reader import RECORD
from stages.retrieval.index_writer import Block, index_writer

faiss.omp_set_num_threads(1)  # what is small gains nothing by more, and on a busy machine threads wait for each other

ORIGIN = {"space": {"kind": "model", "name": "tiny", "fingerprint": "aaaa"}, "corpora": [], "split": None, "views": []}


def unit(*shape, seed=0):
    vectors = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def clustered(rows, width=32, seed=0, centres=40):
    """Unit vectors around a few directions, as encoders leave them."""
    middle = unit(centres, width, seed=1)[np.random.default_rng(seed).integers(0, centres, rows)]
    vectors = middle + 0.6 * unit(rows, width, seed=seed + 2)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def record(number, corpus="photos", split="test", texts=1):
    return {
        "item_id": f"{number}.jpg",
        "corpus": corpus,
        "uri": f"/photos/{number}.jpg",
        "sha256": f"{number:064x}",
        "split": split,
        "media_type": "image",
        "texts": [{"view": f"view{text}", "text": f"Picture {number}."} for text in range(texts)],
    }


def block(numbers, media_NRE, text_ME=None):
    """Items of these numbers with one text each, or with none where `text_ME` is not given."""
    texts = 0 if text_ME is None else 1
    items, rows, width = media_NRE.shape
    text_ME = np.empty((0, width), np.float32) if text_ME is None else text_ME
    records = pa.Table.from_pylist([record(number, texts=texts) for number in numbers], RECORD)
    counts = {"media": np.full(items, rows), "text": np.full(items, texts), "frame": np.zeros(items, np.int32)}
    return Block(records, counts, {"media": media_NRE.reshape(-1, width), "text": text_ME, "frame": text_ME[:0]})


def make_index(folder, *blocks, width=4, **settings):
    """Make the index of these blocks; returns it, open."""
    settings = {"origin": ORIGIN, "dtype": "float32", "kind": "auto", **settings}
    with index_writer(folder, width=width, **settings) as writer:
        return writer.publish(lambda: blocks)


def by_numpy(queries_QE, media_NRE, k):
    """Scores [Q,k] and numbers [Q,k], each item by its best row, ties by number."""
    products = np.einsum("qe,nre->qnr", queries_QE.astype(np.float64), media_NRE.astype(np.float64))
    scores_QN = products.max(2).astype(np.float32)
    order_QN = np.argsort(-scores_QN, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores_QN, order_QN, 1), order_QN

"""Small vector indexes for tests: records, vectors, and NumPy's own answers beside them."""

import faiss
import numpy as np

from stages.retrieval.index_writer import writer

faiss.omp_set_num_threads(1)  # what is small gains nothing by more, and on a busy machine threads wait for each other

ORIGIN = {"encoder": "tiny", "fingerprint": "aaaa", "corpora": {"photos": "1111"}}


def unit(*shape, seed=0):
    vectors = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def clustered(rows, width=32, seed=0, centres=40):
    """Unit vectors around a few directions, as encoders leave them."""
    middle = unit(centres, width, seed=1)[np.random.default_rng(seed).integers(0, centres, rows)]
    vectors = middle + 0.6 * unit(rows, width, seed=seed + 2)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def record(number, corpus="photos", split="test"):
    return {
        "item_id": f"{number}.jpg",
        "corpus": corpus,
        "uri": f"/photos/{number}.jpg",
        "sha256": f"{number:064x}",
        "content": f"{number:016x}",
        "split": split,
        "media_type": "image",
        "texts": [{"view": "short", "text": f"Picture {number}."}],
    }


def make(folder, media_NRE, text_ME=None, owner_M=(), *, first=0, remove=(), **given):
    """Add items `first` … to an index, and publish it."""
    text_ME = np.empty((0, media_NRE.shape[2])) if text_ME is None else text_ME
    given = {"origin": ORIGIN, "dtype": "float32", "kind": "auto", **given}
    with writer(folder, width=media_NRE.shape[2], **given) as index:
        index.remove(remove)
        index.add([record(first + number) for number in range(len(media_NRE))], media_NRE, text_ME, np.array(owner_M))
        index.commit()
    return folder


def by_numpy(queries_QE, media_NRE, k):
    """Scores [Q,k] and numbers [Q,k], each item by its best row, ties by number."""
    products = np.einsum("qe,nre->qnr", queries_QE.astype(np.float64), media_NRE.astype(np.float64))
    scores_QN = products.max(2).astype(np.float32)
    order_QN = np.argsort(-scores_QN, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores_QN, order_QN, 1), order_QN

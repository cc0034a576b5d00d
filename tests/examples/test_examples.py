"""The examples run on a few sample photos."""

import shutil
from pathlib import Path

import pytest
import skimage
import sklearn

from examples import adapt_encoder, read_corpus, search_photos, train_on_photos

PHOTOS = {skimage: ["data/chelsea.png", "data/coffee.png", "data/rocket.jpg"], sklearn: ["datasets/images/flower.jpg"]}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for package, names in PHOTOS.items():
        for name in names:
            shutil.copy(Path(package.__file__).parent / name, folder)
    return folder


@pytest.fixture(scope="module")
def output(photos, tmp_path_factory):
    """Where search_photos.py has written its corpus and index."""
    folder = tmp_path_factory.mktemp("output")
    search_photos.build_index(photos, folder)
    return folder


def test_photos_are_found(output):
    results = search_photos.search(output / "index", ["eine Katze", "コーヒーカップ"], k=1)
    assert [hits[0].item_id for hits in results.values()] == ["chelsea.png", "coffee.png"]


def test_a_corpus_is_read_without_the_project(output):
    corpus = output / "corpus"
    rows = read_corpus.with_datasets(corpus)
    assert set(read_corpus.with_polars(corpus)["view"]) == set(rows["view"])
    assert [item_id for item_id, _ in read_corpus.with_duckdb(corpus)] == sorted(set(rows["item_id"]))


@pytest.fixture(scope="module")
def translated(photos, tmp_path_factory):
    corpus = tmp_path_factory.mktemp("translated") / "corpus"
    train_on_photos.prepare(photos, corpus)
    return corpus


def test_a_model_is_trained(translated, tmp_path):
    checkpoint = train_on_photos.train_model(translated, tmp_path / "run", "steps=2", "batch_size=4")
    portuguese, english = train_on_photos.encode_queries(checkpoint, ["um gato", "a cat"])
    assert len(portuguese) == len(english) == 512
    assert sum(value * value for value in english) == pytest.approx(1, abs=1e-4)


@pytest.mark.torture  # 40 steps
def test_an_encoder_is_adapted(translated, tmp_path):
    encoder = str(adapt_encoder.make_encoder(translated, tmp_path / "tiny"))
    scores = adapt_encoder.adapt(translated, tmp_path, encoder, "batch_size=4")
    adapted, bare, zero_shot, fused = scores.values()
    assert adapted > fused and bare > zero_shot  # each with and without descriptions
    assert "this model, no descriptions" in (tmp_path / "run" / "best-st" / "README.md").read_text()

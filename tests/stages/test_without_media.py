"""Items that were ingested only for their texts, through every stage; translations that came along."""

import dataclasses
from pathlib import Path

import pytest

import beam_runner
from pipeline.corpus.table import Table
from pipeline.errors import UsageError
from pipeline.sources.benchmarks import multi30k
from pipeline.sources.benchmarks.importer import Importer
from pipeline.sources.items import SourceCaption
from stages.pack import Pack
from tests.conftest import make_photos
from tests.corpora import caption, deal_corpus, item, pack
from tests.pipeline.sources.helpers import jpeg, write


def absent(item_id, split="train"):
    return {**item(Path("/nowhere"), item_id, split, (0, 0)), "uri": "", "sha256": "", "num_frames": 0}


@pytest.fixture
def photos(tmp_path):
    return make_photos(tmp_path / "photos", 3)


def test_shared_content_is_matched_behind_items_without_media(tmp_path, photos):
    """Two corpora, the shared photo behind items without media in both."""
    one = deal_corpus(
        tmp_path / "one",
        items=[absent("a"), item(photos[0], "photo")],
        captions=[caption("photo", "Of one."), caption("a", "Unseen.")],
    )
    two = deal_corpus(
        tmp_path / "two",
        items=[absent("a"), absent("b"), item(photos[0], "same")],
        captions=[caption("same", "Of two.")],
        shard_size=3,
    )
    rows = pack(Pack((str(one), str(two)), output=str(tmp_path / "out")), tmp_path / "out")
    assert [[text["text"] for text in row["captions"]] for row in rows] == [["Of one.", "Of two."]]
    notes = Table(tmp_path / "out", "training").manifest
    assert (notes["merged"], notes["without_media"], notes["without_text"]) == (1, 3, 0)


def test_a_corpus_without_any_media_is_refused(tmp_path):
    corpus = deal_corpus(tmp_path / "nothing", items=[absent("a")], captions=[caption("a", "A.")])
    with pytest.raises(UsageError, match="no item has media"):
        Pack((str(corpus),)).check()


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A small Multi30K in which one of three training pictures is there, read as if others had translated it."""
    monkeypatch.setattr(multi30k, "IMAGES", {"train": 3, "val": 1, "test_2016_flickr": 1})
    english = ["A cat sits on a red sofa.", "Two dogs run over the grass.", "A man rides a blue bicycle."]
    german = ["Eine Katze sitzt auf einem roten Sofa.", "", "Ein Mann fährt ein blaues Fahrrad."]
    files = {"task1/image_splits/train.txt": "a.jpg\nb.jpg\nc.jpg\n", "images/a.jpg": jpeg(1)}
    for language, texts in {"en": english, "de": german}.items():
        files[f"task1/raw/train.{language}"] = "\n".join(texts) + "\n"
    original = Importer.captions

    def by_others(importer, picture):
        for each in original(importer, picture):
            yield dataclasses.replace(each, origin="human" if each.language == "en" else "mt")
        yield SourceCaption("A long description of it all.", "en", "mllm", 9)
        yield SourceCaption("Eine lange Beschreibung von allem.", "de", "mt", 9)  # no caption's translation

    monkeypatch.setattr(Importer, "captions", by_others)
    return write(tmp_path / "multi30k", files)


def run(*arguments):
    return beam_runner.run([*map(str, arguments)])


def test_every_stage_on_a_set_without_most_of_its_pictures(small, tmp_path, capfd):
    corpus = tmp_path / "corpus"
    whole = ("--source", "multi30k", "--input", small, "--subset", "--allow-missing-media", "--output", corpus)
    assert run("--stage", "ingest", *whole) == 0
    assert [row["sha256"] != "" for row in Table(corpus, "items").rows()] == [True, False, False]
    assert "2 items came without media" in (corpus / "README.md").read_text("utf-8")
    ids = [row["caption_id"] for row in Table(corpus, "captions").rows()]
    assert "b.jpg#de#0" not in ids and "c.jpg#de#0" in ids and "a.jpg#en-x-mllm#9" in ids

    given = ("--translator", "given", "--languages", "de,fr", "--output", corpus, "--quality-encoder", "none")
    assert run("--stage", "translate", *given) == 0
    assert "de: 1 captions came without a translation" in (out := capfd.readouterr().out)
    assert "fr: 3 captions came without a translation" in out
    rows = list(Table(corpus, "translations").rows())
    assert [(row["caption_id"], row["text"], row["translator"]) for row in rows] == [
        ("a.jpg#en#0", "Eine Katze sitzt auf einem roten Sofa.", "given"),
        ("c.jpg#en#0", "Ein Mann fährt ein blaues Fahrrad.", "given"),
    ]
    assert all(row["scores"]["quality"] > 0.5 for row in rows) and not Table(corpus, "translations").failures()
    assert run("--stage", "translate", *given) == 0  # nothing to do
    assert "nothing to do" in capfd.readouterr().out

    assert run("--stage", "captions", "--captioner", "embedded", "--output", corpus, "--views", "short") == 0
    failures = Table(corpus, "descriptions").failures()
    assert [(row["id"], row["error"]) for row in failures] == [("b.jpg", "missing"), ("c.jpg", "missing")]
    assert "ingested without its media" in failures[0]["message"]

    assert run("--stage", "pack", "--output", corpus) == 0
    assert "2 items left out because they have no media" in capfd.readouterr().out
    (row,) = Table(corpus, "training").rows()
    assert [text["caption_id"] for text in row["captions"]] == ["a.jpg#en#0", "a.jpg#de#9", "a.jpg#en#0>de"]
    assert [description["view"] for description in row["descriptions"]] == ["short", "given-9"]
    assert run("--stage", "verify", "--output", corpus) == 0

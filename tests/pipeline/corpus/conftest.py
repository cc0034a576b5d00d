"""Photographs, and the program run over them."""

import pytest

from tests.conftest import make_photos
from tests.test_beam_runner import ended


@pytest.fixture
def photos(tmp_path):
    make_photos(tmp_path / "photos", 5)
    return tmp_path / "photos"


@pytest.fixture
def corpus(tmp_path):
    return tmp_path / "corpus"


@pytest.fixture
def run(capfd, server, photos, corpus, monkeypatch):
    """run(*options) describes `photos` into `corpus`, two items a shard, one view; run.stage(NAME, *options)."""
    monkeypatch.setattr("pipeline.engine.progress.PLAIN_S", 3600)  # no line of progress, however slow the machine is

    def captions(*options):
        given = [] if "--mllm" in options else ["--mllm-url", server.url]
        for option, value in (("--input", photos), ("--output", corpus), ("--views", "short"), ("--shard-size", 2)):
            given += [] if option in options else [option, value]
        return ended(capfd, "--stage", "captions", *given, *options)

    captions.stage = lambda name, *options: ended(capfd, "--stage", name, "--output", corpus, *options)
    captions.ingest = lambda size=2: captions.stage("ingest", "--input", photos, "--overwrite", "--shard-size", size)
    return captions

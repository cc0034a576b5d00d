import subprocess
import sys

import pytest

from pipeline.corpus import commit
from pipeline.corpus.schema import SCHEMAS
from pipeline.corpus.table import MANIFEST, Table, complete
from pipeline.engine.stage import Run
from pipeline.errors import UsageError
from pipeline.media.images import probe
from pipeline.sources.scenes import corpus as scenes
from pipeline.sources.scenes.__main__ import main
from pipeline.sources.scenes.corpus import Settings, write_corpus
from stages.pack import Pack
from stages.verify import verify
from tests.conftest import ROOT

SETTINGS = Settings(items=12, val=4, test=4, languages=("de",), videos=0.2)


def write(folder, settings=SETTINGS):
    lines = []
    write_corpus(folder, settings, lines.append)
    return lines


def files(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".state" not in path.parts
    }


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpora") / "scenes"
    write(folder)
    return folder


def test_the_corpus_is_verified(corpus):
    good, wrong = verify(corpus)
    assert len(good) == len(SCHEMAS) and wrong == []
    for row in Table(corpus, "items").rows():
        with open(row["uri"], "rb") as stream:
            info = probe(stream)
        assert (info.media_type, info.width) == (row["media_type"], row["width"])
    card = (corpus / "README.md").read_text("utf-8")
    assert "synthetic" in card and "{" not in card and str(corpus) not in card


def test_manifests_are_those_that_pack_would_write(corpus):
    manifest = Table(corpus, "training").manifest
    pack = Pack((str(corpus),), output=str(corpus))
    assert manifest["settings"] == pack.settings() and manifest["fingerprint"] == pack.fingerprint
    assert manifest["splits"]["val"] == {"items": 4, "captions": 4 * 3 * 2, "descriptions": 4 * 5}
    assert manifest["splits"]["train"]["captions"] == 12 * 3 * 2
    assert manifest["dropped"] == {"de": {"pairs": 36, "kept": 36}}
    assert manifest["sources"][0]["captioner"] == "scenes:simulated"
    assert manifest["sources"][0]["translators"]["de"]["name"] == "scenes:pseudo"
    pack.check()
    assert commit.begin(Run("", corpus, 1, corpus), [pack])["pack"] == frozenset()


def test_a_complete_corpus_is_left_as_it_is(corpus, monkeypatch):
    before = files(corpus)
    monkeypatch.setattr(scenes, "plan", lambda _settings: pytest.fail("written again"))
    assert "complete already" in write(corpus)[0]
    with pytest.raises(UsageError, match=r"--items is 12 there and 13 now; --translation-noise is 0\.2 there and 0\.9"):
        write(corpus, Settings(**{**vars(SETTINGS), "items": 13, "translation_noise": 0.9}))
    assert files(corpus) == before


@pytest.mark.parametrize("at", [0, 19])
def test_an_interrupted_corpus_is_incomplete_and_begun_again(tmp_path, monkeypatch, corpus, at):
    folder, written, item_rows = tmp_path / "scenes", [], scenes.item_rows

    def interrupted(item, settings, media):
        written.append(item)
        if len(written) > at:
            raise KeyboardInterrupt
        return item_rows(item, settings, media)

    monkeypatch.setattr(scenes, "item_rows", interrupted)
    monkeypatch.setattr(scenes, "SHARD_ROWS", 6)
    with pytest.raises(KeyboardInterrupt):
        write(folder)
    assert not any(complete(folder, name) for name in SCHEMAS)
    monkeypatch.setattr(scenes, "item_rows", item_rows)
    write(folder)
    good, wrong = verify(folder)
    assert "4 shards" in good[0] and wrong == []
    assert len(list(folder.rglob("*.png"))) == len(list(corpus.rglob("*.png")))


def test_a_corpus_interrupted_between_manifests_is_begun_again_with_any_settings(tmp_path, monkeypatch):
    folder = tmp_path / "scenes"
    write(folder)
    before = files(folder)
    (folder / "training" / MANIFEST).unlink()
    (folder / "items" / "part-00000-of-00001.arrow").write_bytes(b"broken")
    write(folder)
    assert files(folder) == before
    (folder / "training" / MANIFEST).unlink()
    write(folder, Settings(items=5, val=1, test=1, languages=("cs",)))
    assert verify(folder)[1] == [] and len(list((folder / "media" / "train").iterdir())) == 5


def test_a_folder_of_other_things_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match=r"thesis\.txt"):
        write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_the_program_writes_a_corpus(tmp_path, capsys):
    arguments = ["--items=6", "--val=2", "--test=2", "--size=32", "--videos=0.5", "--languages", "cs, de"]
    command = ["--output", str(tmp_path / "c"), *arguments]
    assert main(command) == 0
    assert "training: 10 rows in 1 shards" in capsys.readouterr().out
    recorded = Table(tmp_path / "c", "items").manifest["settings"]
    assert recorded == Settings(6, 2, 2, 32, languages=("de", "cs"), videos=0.5).recorded()
    assert main([*command, "--size", "33"]) == 2
    assert "--size is 32 there and 33 now" in capsys.readouterr().err


def test_the_program_as_a_module(tmp_path):
    command = [sys.executable, "-m", "pipeline.sources.scenes", "--output", str(tmp_path / "c"), "--val=0", "--test=0"]
    refused = subprocess.run([*command, "--items=0", "--size=32"], cwd=ROOT, capture_output=True, text=True)
    assert refused.returncode == 2 and "at least one item" in refused.stderr and not (tmp_path / "c").exists()

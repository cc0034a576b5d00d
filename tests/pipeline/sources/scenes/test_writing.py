import json
import shutil
import types

import pytest

from pipeline.corpus import commit as tables
from pipeline.corpus import table as corpora
from pipeline.corpus.schema import SCHEMAS
from pipeline.errors import UsageError
from pipeline.sources.scenes import rows, writing
from pipeline.sources.scenes.rows import Settings
from stages.pack import Pack
from stages.verify import verify

SETTINGS = Settings(items=12, val=4, test=4, languages=("de",), videos=0.2)


def write(folder, settings=SETTINGS):
    lines = []
    writing.write(folder, settings, lines.append)
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


def test_it_is_verified(corpus):
    good, wrong = verify(corpus)
    assert len(good) == len(SCHEMAS) and wrong == []


def test_several_shards_are_verified(tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "SHARD_ROWS", 7)
    write(tmp_path / "scenes")
    good, wrong = verify(tmp_path / "scenes")
    assert "3 shards" in good[0] and wrong == []


def test_manifests_are_those_that_pack_would_write(corpus):
    manifest = corpora.Table(corpus, "training").manifest
    pack = Pack((str(corpus),), output=str(corpus))
    assert manifest["settings"] == pack.settings() and manifest["fingerprint"] == pack.fingerprint
    assert manifest["splits"]["val"] == {"items": 4, "captions": 4 * 3 * 2, "descriptions": 4 * 5}
    assert manifest["splits"]["train"]["captions"] == 12 * 3 * 2
    assert manifest["dropped"] == {"de": {"pairs": 36, "kept": 36}}
    assert manifest["sources"][0]["captioner"] == "scenes:simulated"
    assert manifest["sources"][0]["translators"]["de"]["name"] == "scenes:pseudo"
    parents = {name: set(corpora.Table(corpus, name).manifest["parents"]) for name in SCHEMAS}
    assert parents == {
        "items": set(),
        "captions": set(),
        "descriptions": {"items"},
        "translations": {"items", "captions"},
        "training": {"items", "captions", "descriptions", "translations"},
    }
    pack.look().check(lambda _line: None)
    assert tables.begin(corpus, [pack], 1)["pack"] == tables.NOTHING_TO_DO  # its shard is made from what lies there


def test_the_truth_lies_beside_it_and_the_card_says_what_it_is(corpus):
    lines = [json.loads(line) for line in (corpus / "scenes.jsonl").read_text("utf-8").splitlines()]
    ids = [row["item_id"] for row in corpora.Table(corpus, "items").rows()]
    assert [line["item_id"] for line in lines] == ids
    card = (corpus / "README.md").read_text("utf-8")
    assert "synthetic" in card and "{" not in card and str(corpus) not in card


def test_the_same_settings_give_the_same_bytes(corpus):
    before = files(corpus)
    shutil.rmtree(corpus)
    write(corpus)
    assert files(corpus) == before


def test_what_is_complete_is_left_as_it_is(corpus, monkeypatch):
    monkeypatch.setattr(writing.rows, "plan", lambda _settings: pytest.fail("made again"))
    assert "complete already" in write(corpus)[0]


def test_other_settings_are_named(corpus):
    before = files(corpus)
    with pytest.raises(UsageError, match=r"--translation-noise is 0\.2 there and 0\.9 now: give"):
        write(corpus, Settings(**{**vars(SETTINGS), "translation_noise": 0.9}))
    with pytest.raises(UsageError, match="--items is 12 there and 13 now; --seed is 0 there and 5 now"):
        write(corpus, Settings(**{**vars(SETTINGS), "items": 13, "seed": 5}))
    assert files(corpus) == before


@pytest.mark.parametrize("at", [0, 5, 19])
def test_a_run_cut_off_looks_like_nothing_and_is_made_again(tmp_path, monkeypatch, corpus, at):
    folder, done = tmp_path / "scenes", []

    def cut(item, settings, media):
        done.append(item)
        if len(done) > at:
            raise KeyboardInterrupt
        return rows_of(item, settings, media)

    rows_of = rows.rows_of
    monkeypatch.setattr(rows, "rows_of", cut)
    monkeypatch.setattr(writing, "SHARD_ROWS", 6)
    with pytest.raises(KeyboardInterrupt):
        write(folder)
    assert not any(corpora.complete(folder, name) for name in SCHEMAS)
    monkeypatch.undo()
    write(folder)
    assert verify(folder)[1] == []
    assert files(folder).keys() == files(corpus).keys()


def test_one_cut_off_between_manifests_is_made_again(tmp_path):
    folder = tmp_path / "scenes"
    write(folder)
    before = files(folder)
    (folder / "training" / corpora.MANIFEST).unlink()
    (folder / "items" / "part-00000-of-00001.arrow").write_bytes(b"broken")
    write(folder)
    assert files(folder) == before


def test_one_cut_off_while_old_tables_are_removed_looks_like_nothing(tmp_path, monkeypatch):
    write(tmp_path / "scenes")
    (tmp_path / "scenes" / "training" / corpora.MANIFEST).unlink()

    def cut(*_arguments, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr(writing, "shutil", types.SimpleNamespace(rmtree=cut))
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "scenes")
    assert not any(corpora.complete(tmp_path / "scenes", name) for name in SCHEMAS)


def test_one_cut_off_binds_nobody_to_its_settings(tmp_path):
    folder = tmp_path / "scenes"
    write(folder)
    (folder / "training" / corpora.MANIFEST).unlink()
    write(folder, Settings(items=5, val=1, test=1, languages=("cs",)))
    assert verify(folder)[1] == [] and len(list((folder / "media" / "train").iterdir())) == 5


def test_a_folder_of_other_things_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match=r"holds other things \(thesis\.txt\)"):
        write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]

import json

import pytest

from pipeline.corpus import table as corpora
from pipeline.errors import UsageError
from pipeline.media.images import probe
from pipeline.sources import open_source
from pipeline.sources.scenes.rows import Settings
from pipeline.sources.scenes.source import checked, main, write_corpus, write_folder
from stages.verify import verify


def test_the_program_writes_a_corpus(tmp_path, capsys):
    numbers = {"items": 6, "val": 2, "test": 2, "size": 32, "seed": 3}
    shares = {"translation-noise": 0.5, "description-errors": 0, "videos": 0.5}
    arguments = [f"--{name}={value}" for name, value in (numbers | shares).items()]
    given = ["--output", str(tmp_path / "c"), *arguments, "--languages", "cs, de"]
    assert main(given) == 0
    assert "training: 10 rows in 1 shards" in capsys.readouterr().out
    assert verify(tmp_path / "c")[1] == []
    assert corpora.Table(tmp_path / "c", "items").manifest["settings"] == {
        "version": 1,
        "items": 6,
        "val": 2,
        "test": 2,
        "size": 32,
        "seed": 3,
        "languages": ["de", "cs"],
        "translation_noise": 0.5,
        "description_errors": 0.0,
        "videos": 0.5,
    }
    assert main(given) == 0
    assert "complete already" in capsys.readouterr().out
    assert main([*given, "--size", "33"]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1 and "--size is 32 there and 33 now" in captured.err and not captured.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "got neither --output nor --folder"),
        (["--languages", "de,en"], "--languages: got 'en', wanted some of de, fr, cs, zh, ja"),
        (["--languages", ","], "--languages: got none"),
        (["--size", "8"], "--size: got 8 pixels, wanted 16 to 1,024"),
        (["--items", "-1"], "--items: got -1, wanted 0 or more"),
        (["--items", "0", "--val", "0", "--test", "0"], "wanted at least one item"),
        (["--translation-noise", "1.5"], "--translation-noise: got 1.5, wanted 0 to 1"),
        (["--videos", "nan"], "--videos: got nan, wanted 0 to 1"),
        (["--description-errors", "-0.1"], "--description-errors: got -0.1"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path, capsys, arguments, message):
    folder = tmp_path / "c"
    assert main([*arguments, *(["--output", str(folder)] if arguments else [])]) == 2
    told = capsys.readouterr().err
    assert message in told and told.count("\n") == 1 and not folder.exists()


def test_the_corpus_from_a_program(tmp_path):
    said = []
    write_corpus(tmp_path / "c", items=3, val=1, test=1, languages=["de"], say=said.append)
    write_corpus(tmp_path / "d", items=3, val=1, test=1, languages=["de"])
    assert said[0] == "items: 5 rows in 1 shards"
    one, two = (list(corpora.Table(tmp_path / name, "training").rows()) for name in "cd")
    assert [{**row, "uri": ""} for row in one] == [{**row, "uri": ""} for row in two]
    for row in corpora.Table(tmp_path / "c", "items").rows():
        with open(row["uri"], "rb") as stream:
            seen = probe(stream)
        assert (seen.media_type, seen.width) == (row["media_type"], row["width"])


def test_a_folder_is_an_input_with_captions(tmp_path):
    write_folder(tmp_path / "f", items=20, videos=0.3, seed=2)
    source = open_source(str(tmp_path / "f"))
    assert "20 media files, captions.jsonl with 20 rows" in source.summary
    items = list(source.items())
    assert all(len(item.captions) == 3 and item.captions[0].language == "en" for item in items)
    truth = [json.loads(line) for line in (tmp_path / "f" / "scenes.jsonl").read_text("utf-8").splitlines()]
    assert sorted(line["file"] for line in truth) == [item.item_id for item in items]
    for line in truth:
        assert line["file"].endswith(".avi") == any(thing["motion"] for thing in line["objects"])
        assert {"background", "objects", "relations"} < line.keys()
    write_corpus(tmp_path / "c", items=20, val=0, test=0, videos=0.3, seed=2, translation_noise=1.0)
    captions: dict[str, list[str]] = {}
    for row in corpora.Table(tmp_path / "c", "captions").rows():
        captions.setdefault(row["item_id"].removeprefix("train/"), []).append(row["text"])
    assert captions == {item.item_id: [caption.text for caption in item.captions] for item in items}


def test_a_folder_that_is_in_use_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds something"):
        write_folder(tmp_path, items=2)
    assert len(list(tmp_path.iterdir())) == 1


def test_one_setting_has_one_spelling():
    settings = checked(Settings(videos=0, translation_noise=1, languages=("cs", "de", "cs")))
    assert (repr(settings.videos), repr(settings.translation_noise), settings.languages) == ("0.0", "1.0", ("de", "cs"))

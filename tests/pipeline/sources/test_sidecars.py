import contextlib
import json
import posixpath
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import UsageError
from pipeline.sources import SourceCaption, open_source
from pipeline.sources.sidecars import SideFile
from tests.pipeline.sources.helpers import jpeg, listed, not_taken, texts, write
from tests.worked_examples import each_example

MEDIA = {"a.jpg": jpeg(1), "sub/b.jpg": jpeg(2), "sub/c.jpg": jpeg(3)}


def lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def captions_of(folder, **settings):
    return {name: texts(item) for name, item in listed(open_source(str(folder), **settings)).items()}


def test_json_lines_with_every_key(tmp_path):
    rows = lines(
        {"file": "a.jpg", "captions": ["one", "  ", "two ", "one"], "language": "de", "license": "CC0", "split": "dev"},
        {"file_name": "./sub/b.jpg", "text": "three", "source": "the attic"},
        {"file": "c.jpg", "caption": {"text": "quatre", "language": "fr"}, "captions": None},
    )
    write(tmp_path, {**MEDIA, "captions.jsonl": "\ufeff" + rows.replace("\n", "\r\n\r\n")})
    items = listed(open_source(str(tmp_path), caption_language="it", license="mine"))
    assert items["a.jpg"].captions == (SourceCaption("one", "de"), SourceCaption("two", "de"))
    assert (items["a.jpg"].license, items["a.jpg"].split) == ("CC0", "val")
    assert items["sub/b.jpg"].captions == (SourceCaption("three", "it"),)
    assert (items["sub/b.jpg"].license, items["sub/b.jpg"].source) == ("mine", "the attic")
    assert items["sub/c.jpg"].captions == (SourceCaption("quatre", "fr"),)


def test_csv_with_bom_quoted_lines_lists_and_repeated_files(tmp_path):
    table = (
        '\ufefffile,captions,language\r\na.jpg,"two\nlines, and ""quotes""",\r\n\r\n'
        'sub/b.jpg,"[""x"", ""y""]",pt\r\na.jpg,[not a list,\r\nsub/c.jpg\r\n'
    )
    write(tmp_path, {**MEDIA, "captions.csv": table})
    items = listed(open_source(str(tmp_path)))
    assert texts(items["a.jpg"]) == ['two\nlines, and "quotes"', "[not a list"]
    assert items["sub/b.jpg"].captions == (SourceCaption("x", "pt"), SourceCaption("y", "pt"))
    assert texts(items["sub/c.jpg"]) == []


def test_several_side_files_add_up_each_caption_once(tmp_path):
    row = r'{"file": "a.jpg", "captions": ["one", "two", "half a pair \ud83d", "a pair \ud83d\ude00"]}'
    write(tmp_path, {**MEDIA, "captions.jsonl": row, "captions.csv": "file,caption\na.jpg,two\na.jpg,three\n"})
    expected = ["two", "three", "one", "half a pair \ufffd", "a pair \U0001f600"]  # by the side files' names
    assert captions_of(tmp_path)["a.jpg"] == expected


def test_rows_that_match_nothing_are_counted(tmp_path):
    write(tmp_path, {"x/a.jpg": jpeg(1), "y/a.jpg": jpeg(2), "b.jpg": jpeg(3)})
    rows = [{"file": "a.jpg", "text": "which?"}, {"file": "b.jpg", "text": "b"}, {"file": "gone.jpg", "text": "no"}]
    write(tmp_path, {"captions.jsonl": lines(*rows)})
    assert captions_of(tmp_path) == {"b.jpg": ["b"], "x/a.jpg": [], "y/a.jpg": []}
    assert "captions.jsonl with 3 rows (2 not used" in open_source(str(tmp_path)).summary


def test_a_side_file_above_is_used_only_for_media_below(tmp_path):
    write(tmp_path, {"mine/1.jpg": jpeg(1), "mine/2.jpg": jpeg(2), "yours/1.jpg": jpeg(3)})
    yours, mine = lines({"file": "yours/1.jpg", "text": "yours"}), lines({"file": "mine/1.jpg", "text": "m"})
    for table, expected in ((yours, []), (yours + mine, ["m"]), ("not json\n", [])):
        write(tmp_path, {"captions.jsonl": table})
        assert captions_of(tmp_path / "mine") == {"1.jpg": expected, "2.jpg": []}
        assert ("../captions.jsonl not used" in open_source(str(tmp_path / "mine")).summary) == (expected == [])
    write(tmp_path, {"captions.jsonl": mine + "not json\n"})
    with pytest.raises(UsageError, match=r"captions\.jsonl line 2"):
        open_source(str(tmp_path / "mine"))


@each_example("a_bad_side_file_is_refused_with_its_line", "name, text, message")
def test_a_bad_side_file_is_refused_with_its_line(tmp_path, name, text, message):
    write(tmp_path, {**MEDIA, name: text.encode("latin-1")})
    with pytest.raises(UsageError, match=message):
        open_source(str(tmp_path))


NAMES = st.sampled_from(["1.jpg", "2.jpg", "3.jpg"])
PATHS = st.builds(lambda folders, name: "/".join([*folders, name]), st.lists(st.sampled_from("ab"), max_size=2), NAMES)


def match(media, files, label="captions.jsonl"):
    """The numbers of the rows by medium."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows"
        path.write_text(lines(*({"file": file, "source": str(number)} for number, file in enumerate(files))))
        side = SideFile(str(path), label, media, "en", "../mine/")
        with contextlib.suppress(UsageError):  # no row matches
            side.read()
    numbers = {path: [int(row.source) for row in side.fields(path)] for path in media}
    assert side.rows == len(files) and side.matched == sum(map(len, numbers.values()))
    return numbers


@settings(max_examples=80, deadline=None)
@given(media=st.sets(PATHS, min_size=1), files=st.lists(PATHS, max_size=8))
def test_rows_match_by_path_else_by_a_name_that_one_medium_and_one_row_path_have(media, files):
    expected = {path: [] for path in media}
    for number, file in enumerate(files):
        same_name = [path for path in media if posixpath.basename(path) == posixpath.basename(file)]
        rivals = {f for f in files if f not in media and posixpath.basename(f) == posixpath.basename(file)}
        if file in media:
            expected[file].append(number)
        elif len(same_name) == 1 and same_name[0] not in files and len(rivals) == 1:
            expected[same_name[0]].append(number)
    assert match(media, files) == expected


def test_paths_are_relative_to_the_side_file_or_to_the_media():
    numbers = match(["a/1.jpg", "b/1.jpg"], ["1.jpg", "b/1.jpg", " ./1.jpg"], "a/captions.jsonl")
    assert numbers == {"a/1.jpg": [0, 2], "b/1.jpg": [1]}
    assert match(["1.jpg"], ["mine/1.jpg", "yours/1.jpg"], "../captions.jsonl") == {"1.jpg": [0]}
    # old/a.jpg was deleted; its caption must not go to new/a.jpg, which has its own.
    assert match(["new/a.jpg"], ["old/a.jpg", "new/a.jpg"]) == {"new/a.jpg": [1]}


@each_example("texts_named_after_media", "media, name, text, expected")
def test_texts_named_after_media(tmp_path, media, name, text, expected):
    write(tmp_path, {media: jpeg(1), "other.jpg": jpeg(2), name: text})
    source = open_source(str(tmp_path))
    assert texts(listed(source)[media]) == expected
    assert "1 texts" in source.summary and set(not_taken(source)) <= {"creationTime"}


def test_texts_by_language_and_those_that_are_not_taken(tmp_path):
    files = {"a.jpg": jpeg(1), "a.png": jpeg(2), "a.txt": "x", "a.de.txt": "y", "x/b.jpg": jpeg(3), "y/b.jpg": jpeg(4)}
    files |= {"x/c.jpg": jpeg(5)}
    wrong = {
        "b.txt": "z",
        "boxes.txt": "0 .5 .5\n",
        "c.json": "{",
        "d.txt": b"\xff",
        "train.csv": "",
        "big.json": "[" * 2**21,
    }
    write(tmp_path, {**files, **wrong, "README.txt": "Mine.", "results.csv": "dog,cat\n1,2\n"})
    source = open_source(str(tmp_path))
    items = listed(source)
    both = {SourceCaption("x"), SourceCaption("y", "de")}
    assert [set(item.captions) for item in items.values()] == [both, both, set(), set(), set()]
    assert not_taken(source) == dict.fromkeys([*wrong, "results.csv"], "not_taken")


def test_the_name_of_a_side_file_may_have_its_language(tmp_path):
    table = "file,caption\na.jpg,x\n"
    write(
        tmp_path,
        {"a.jpg": jpeg(1), "captions_de.csv": table, "captions_fr_train.csv": table, "captions_val.csv": table},
    )
    captions = listed(open_source(str(tmp_path)))["a.jpg"].captions
    assert {caption.language for caption in captions} == {"de", "fr", "en"}

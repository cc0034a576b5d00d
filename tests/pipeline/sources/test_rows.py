"""Captions in the shapes and under the names that people's tables give them."""

import json

import pytest

from pipeline.errors import UsageError
from pipeline.sources import open_source
from pipeline.sources.rows import read_column, read_fields, read_json
from tests.pipeline.sources.helpers import jpeg, listed, not_taken, texts, write
from tests.worked_examples import each_example


def captions(row, language="en"):
    return [(caption.language, caption.text) for caption in read_fields(row, language).captions]


@each_example("columns_of_captions_have_many_names", "row, expected")
def test_columns_of_captions_have_many_names(row, expected):
    assert [text for _, text in captions(row)] == expected


@each_example("captions_by_language", "row")
def test_captions_by_language(row):
    assert captions(row) == [("en", "Ship."), ("pt-BR", "Navio."), ("zh", "船")]


def test_a_column_named_id_is_indonesian_only_if_it_holds_a_text():
    assert captions({"id": "0017", "caption_id": 4, "de": "Ein Haus."}) == [("de", "Ein Haus.")]
    assert captions({"id": "Sebuah rumah.", "de": "Ein Haus."}) == [("id", "Sebuah rumah."), ("de", "Ein Haus.")]


@pytest.mark.parametrize("name", ["text_len", "caption_raw", "new", "male", "width", "is_safe", "caption_model"])
def test_words_that_are_codes_of_rare_languages_are_not_languages(name):
    assert read_column(name).role not in ("captions", "texts")


@each_example("languages_have_one_spelling", "language, tag")
def test_languages_have_one_spelling(language, tag):
    assert captions({"caption": "x", "language": language}) == [(tag, "x")]


def test_an_unknown_language_is_refused():
    with pytest.raises(ValueError, match="gibberish"):
        read_fields({"caption": "x", "language": "gibberish"}, "en")


@each_example("cells_that_hold_lists_or_nothing", "cell, expected")
def test_cells_that_hold_lists_or_nothing(cell, expected):
    assert [text for _, text in captions({"captions": cell})] == expected


def test_what_is_not_read_is_named():
    row = {"caption": "x", "mood": "calm", "title": "y", "width": 3, "empty": "", "text": "x", "no": 7}
    talk = [{"from": "gpt", "value": "A."}, {"from": "human", "value": "Why?"}, {"from": "gpt", "value": "B."}]
    assert read_fields(row, "en").unread == ("mood", "title")
    assert read_fields({"conversations": talk}, "en").unread == ("conversations after the first answer",)


def test_a_json_key_that_comes_twice_keeps_both_values():
    assert captions(read_json('{"caption": "x", "file": "a", "caption": "y", "Caption": ["z"]}')) == [
        ("en", "x"),
        ("en", "y"),
        ("en", "z"),
    ]
    with pytest.raises(ValueError, match="license has several values"):
        read_fields(read_json('{"license": "CC0", "license": "MIT"}'), "en")


@each_example("paths_as_other_systems_write_them", "media, named")
def test_paths_as_other_systems_write_them(tmp_path, media, named):
    write(
        tmp_path, {media: jpeg(1), "other/a.jpg": jpeg(2), "captions.jsonl": json.dumps({"file": named, "text": "x"})}
    )
    assert texts(listed(open_source(str(tmp_path)))[media]) == ["x"]


def test_a_path_that_may_be_of_two_files_is_of_neither(tmp_path):
    rows = [{"file": "A.jpg", "text": "x"}, {"file": "/old/a.jpg", "text": "y"}, {"file": "b.jpg", "text": "z"}]
    write(tmp_path, {"p/a.jpg": jpeg(1), "q/a.jpg": jpeg(2), "b.jpg": jpeg(3)})
    write(tmp_path, {"captions.jsonl": "\n".join(map(json.dumps, [*rows, {"file": "", "text": "w"}]))})
    source = open_source(str(tmp_path))
    assert {name: texts(item) for name, item in listed(source).items()} == {
        "b.jpg": ["z"],
        "p/a.jpg": [],
        "q/a.jpg": [],
    }
    assert not_taken(source) == dict.fromkeys(["A.jpg", "/old/a.jpg", "line 4"], "unmatched_row")


def test_columns_that_come_twice(tmp_path):
    table = "file,caption,caption,Caption,mood\n1.jpg,a,b,c,calm\n2.jpg,d,,d,\n"
    write(tmp_path, {"1.jpg": jpeg(1), "2.jpg": jpeg(2), "metadata.csv": table})
    source = open_source(str(tmp_path))
    assert [texts(item) for item in listed(source).values()] == [["a", "b", "c"], ["d"]]
    assert not_taken(source) == {"mood": "unknown_column"}
    write(tmp_path, {"metadata.csv": "file,split,split\n1.jpg,train,test\n"})
    with pytest.raises(UsageError, match="line 2: split has several values"):
        open_source(str(tmp_path))


@each_example("tables_as_people_have_them", "name, text")
def test_tables_as_people_have_them(tmp_path, name, text):
    data = text.encode("utf-16" if name == "metadata.csv" else "utf-8")
    write(tmp_path, {"1.jpg": jpeg(1), "2.jpg": jpeg(2), name: data})
    source = open_source(str(tmp_path))
    assert [texts(item) for item in listed(source).values()] == [["eins, zwei"], ["drei"]]
    assert not_taken(source) == {}

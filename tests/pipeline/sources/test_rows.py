"""Captions in the shapes and under the names that people's tables give them."""

import json
import unicodedata

import pytest

from pipeline.errors import UsageError
from pipeline.sources import open_source
from pipeline.sources.rows import read_column, read_fields, read_json
from tests.pipeline.sources.helpers import jpeg, listed, not_taken, texts, write


def captions(row, language="en"):
    return [(caption.language, caption.text) for caption in read_fields(row, language).captions]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"Description": "A kite."}, ["A kite."]),
        ({"caption_0": "A kite.", "caption_1": "A toy.", "Caption 2": None}, ["A kite.", "A toy."]),
        ({"sentence1": "A kite.", "sentence2": "A toy."}, ["A kite.", "A toy."]),
        ({"alt-text": "A kite.", "author": "Ann Lee"}, ["A kite."]),
        ({"short_caption": "A kite.", "captionLlava": "A toy.", "syn_text": "x"}, ["A kite.", "A toy."]),
        ({"<MORE_DETAILED_CAPTION>": "A kite.", "thumb": "a.jpg"}, ["A kite."]),
        ({"prompt": "What is it?", "response": "A kite."}, ["A kite."]),
        ({"Bildbeschreibung": "Ein Drachen."}, ["Ein Drachen."]),
        (
            {"conversations": [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "Kite."}]},
            ["Kite."],
        ),
        ({"messages": [{"role": "assistant", "content": [{"type": "text", "text": "A kite."}]}]}, ["A kite."]),
    ],
)
def test_columns_of_captions_have_many_names(row, expected):
    assert [text for _, text in captions(row)] == expected


@pytest.mark.parametrize(
    "row",
    [
        {"caption_en": "Ship.", "caption_pt_BR": "Navio.", "caption_zh": "船"},
        {"en": "Ship.", "pt-BR": "Navio.", "zh": "船"},
        {"English": "Ship.", "caption (pt_br)": "Navio.", "Chinese caption": "船"},
        {"captions": {"eng": "Ship.", "pt_br": ["Navio."], "zho": "船"}},
        {"caption": [{"text": "Ship."}, {"text": "Navio.", "language": "pt_BR"}, {"text": "船", "lang": "Chinese"}]},
    ],
)
def test_captions_by_language(row):
    assert captions(row) == [("en", "Ship."), ("pt-BR", "Navio."), ("zh", "船")]


def test_a_column_named_id_is_indonesian_only_if_it_holds_a_text():
    assert captions({"id": "0017", "caption_id": 4, "de": "Ein Haus."}) == [("de", "Ein Haus.")]
    assert captions({"id": "Sebuah rumah.", "de": "Ein Haus."}) == [("id", "Sebuah rumah."), ("de", "Ein Haus.")]


@pytest.mark.parametrize("name", ["text_len", "caption_raw", "new", "male", "width", "is_safe", "caption_model"])
def test_words_that_are_codes_of_rare_languages_are_not_languages(name):
    assert read_column(name).role not in ("captions", "texts")


@pytest.mark.parametrize(
    ("language", "tag"),
    [
        *(("German", "de"), ("deu", "de"), ("de_AT", "de-AT"), ("pt_BR.UTF-8", "pt-BR"), ("FR", "fr"), ("jp", "ja")),
        *(("español", "es"), ("Chinese (Traditional)", "zh-Hant"), ("unknown", "en"), ("und", "en"), (None, "en")),
    ],
)
def test_languages_have_one_spelling(language, tag):
    assert captions({"caption": "x", "language": language}) == [(tag, "x")]


def test_an_unknown_language_is_refused():
    with pytest.raises(ValueError, match="gibberish"):
        read_fields({"caption": "x", "language": "gibberish"}, "en")


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ('["One.", "It\'s two."]', ["One.", "It's two."]),
        ("""["It's one.", 'Two, "quoted".']""", ["It's one.", 'Two, "quoted".']),
        ("['One.' 'Two.'\n 'Three.']", ["One.", "Two.", "Three."]),
        ("array(['One.', 'Two.'], dtype=object)", ["One.", "Two."]),
        ("('One.',)", ["One."]),
        ("['One.', nan, None]", ["One."]),
        ("[{'text': 'One.', 'n': 1}]", ["One."]),
        ("{'en': 'One.', 'de': 'Eins.'}", ["One.", "Eins."]),
        ("[unfinished", ["[unfinished"]),
        ("[A sign] says 'stop'", ["[A sign] says 'stop'"]),
        ("(two dogs)", ["(two dogs)"]),
        ("nan", []),
        (" None ", []),
        ("NULL", []),
        ("\\N", []),
        ("#NAME?", []),
        (" - ", []),
        ('""', []),
        (float("nan"), []),
    ],
)
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


@pytest.mark.parametrize(
    ("media", "named"),
    [
        ("sub/Müller 1.JPG", "SUB\\müller 1.jpg"),
        (unicodedata.normalize("NFD", "sub/Ångström.jpg"), "sub/Ångström.jpg"),
        ("sub/a b&c.jpg", "sub/a%20b%26c.jpg"),
        ("sub/a.jpg", "C:\\Users\\me\\pics\\sub\\a.jpg"),
        ("sub/a.jpg", "/home/me/pics/sub/a.jpg"),
        ("sub/a.jpg", "file:///home/me/pics/sub/a.jpg"),
        ("sub/a.jpg", ".\\sub\\a.jpg#3"),
        ("sub/0042.jpg", "0042"),
        ("sub/a b.jpg", "https://example.org/x/a%20b.jpg?w=640#top"),
        ("sub/a.jpg", "/data/local-files/?d=sub/a.jpg"),
    ],
)
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


TABLES = {
    "captions.csv": "File;Caption\r\n1.jpg;eins, zwei\r\n2.jpg;drei;\r\n",
    "metadata.csv": b"\xff\xfe"
    + "sep=\t\r\nfile_name\ttext\r\n1.jpg\teins, zwei\r\n2.jpg\tdrei\r\n".encode("utf-16-le"),
    "Captions.tsv": "image\tdescription\n1.jpg\teins, zwei\n2.jpg\tdrei\n",
    "captions.txt": 'image,caption\n1.jpg,"eins, zwei"\n2.jpg,drei\n',
    "results.csv": "image_name| comment_number| comment\n1.jpg| 0| eins, zwei\n2.jpg| 0| drei\n",
    "captions.json": '{"1.jpg": ["eins, zwei"], "2.jpg": "drei"}',
    "metadata.json": '[{"image": "1.jpg", "caption": "eins, zwei"}, {"image": "2.jpg", "caption": "drei"}]',
    "annotations.json": json.dumps(
        {
            "images": [{"id": 5, "file_name": "1.jpg"}, {"id": 6, "file_name": "2.jpg"}],
            "annotations": [{"image_id": 6, "caption": "drei", "id": 1}, {"image_id": 5, "caption": "eins, zwei"}],
        }
    ),
    "dataset.json": json.dumps(
        {
            "images": [
                {"filename": "1.jpg", "split": "train", "sentences": [{"raw": "eins, zwei", "tokens": ["eins"]}]},
                {"filename": "2.jpg", "split": "train", "sentences": [{"raw": "drei", "tokens": ["drei"]}]},
            ]
        }
    ),
    "train.jsonl": '{"images": ["1.jpg"], "messages": [{"role": "assistant", "content": "eins, zwei"}]}\n'
    '{"images": ["2.jpg"], "messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "drei"}]}',
    "chat.json": '[{"id": "a", "image": "1.jpg", "conversations": [{"from": "gpt", "value": "eins, zwei"}]},'
    '{"id": "b", "image": "2.jpg", "conversations": [{"from": "gpt", "value": "drei"}]}]',
    "captions.ndjson": '{"id": 1, "captions": {"0": "eins, zwei"}}\n{"id": 2, "captions": {"0": "drei"}}\n',
    "Excel.csv": "Dateiname;Bildbeschreibung\r\n1.jpg;eins, zwei\r\n2.jpg;drei\r\n",
    "project-1.json": '[{"id": 1, "photo_of": "/up/1.jpg", "caption": "eins, zwei"},'
    '{"id": 2, "photo_of": "/up/2.jpg", "caption": "drei"}]',
    "Captions.json": '{"info": {}, "data": [{"src": "1.jpg", "alt": "eins, zwei"}, {"src": "2.jpg", "alt": "drei"}]}',
    "metadata.tsv": "name\tcaption\r1.jpg\teins, zwei\r2.jpg\tdrei\r",
    "photos.csv": "No;Picture;de\n1;1.jpg;eins, zwei\n2;2.jpg;drei\n",
    "captions.CSV": '\ufeff1.jpg#0,"eins, zwei"\n2.jpg#0,drei\n',
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_as_people_have_them(tmp_path, name):
    write(tmp_path, {"1.jpg": jpeg(1), "2.jpg": jpeg(2), name: TABLES[name]})
    source = open_source(str(tmp_path))
    assert [texts(item) for item in listed(source).values()] == [["eins, zwei"], ["drei"]]
    assert not_taken(source) == {}

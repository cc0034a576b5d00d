import json

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import UsageError
from pipeline.sources import SourceCaption, open_source
from tests.pipeline.sources.helpers import content, jpeg, listed, not_taken, texts, write
from tests.worked_examples import each_example

datasets.disable_progress_bars()


def photos(first, last, **columns):
    rows = [{"bytes": jpeg(number), "path": None} for number in range(first, last)]
    return datasets.Dataset.from_dict({"picture": rows, **columns}).cast_column("picture", datasets.Image())


def test_a_saved_dataset_dict_keeps_its_splits(tmp_path):
    train = photos(0, 5, caption=[["a", " ", "b"]] * 5, image_id=[10, 11, 12, 13, 14])
    validation, extra = photos(5, 7, caption=[["c"]] * 2, image_id=[15, 16]), photos(7, 8, caption=[[]], image_id=[7])
    saved = datasets.DatasetDict({"train": train, "validation": validation, "extra": extra})
    saved.save_to_disk(tmp_path / "set", num_shards={"train": 2, "validation": 1, "extra": 1})
    source = open_source(str(tmp_path / "set"), caption_language="de", license="CC0")
    items = listed(source)
    assert [content(item) for item in items.values()] == [jpeg(number) for number in (7, 0, 1, 2, 3, 4, 5, 6)]
    ids_and_splits = {**dict.fromkeys(("10", "11", "12", "13", "14"), "train"), "15": "val", "16": "val", "7": "extra"}
    assert {key: item.split for key, item in items.items()} == ids_and_splits
    assert items["10"].captions == (SourceCaption("a", "de"), SourceCaption("b", "de"))
    assert (items["10"].license, items["10"].source, items["7"].captions) == ("CC0", "set", ())
    for part in ("8 rows in 4 files", "column 'picture'", "captions in 'caption'", "ids in 'image_id'"):
        assert part in source.summary
    valid = listed(open_source(str(tmp_path / "set" / "validation"), split="test"))
    assert {key: item.split for key, item in valid.items()} == {"15": "test", "16": "test"}


@pytest.mark.parametrize("ids", [["x", "x", "y"], ["x", None, "y"], ["x", " ", "y"], [0.5, 1.5, 2.5]])
def test_ids_are_file_and_row_where_no_column_is_unique(tmp_path, ids):
    (tmp_path / "data").mkdir()
    photos(0, 3, id=ids, img_id=[1, 1, 1]).to_parquet(tmp_path / "data" / "validation-00000-of-00001.parquet")
    last = ["z" if isinstance(ids[0], str) else 9.5]
    photos(3, 4, id=last, img_id=[9]).to_parquet(tmp_path / "data" / "train-00000-of-00001.parquet")
    items = listed(open_source(str(tmp_path)))
    assert {key: (content(item), item.split) for key, item in items.items()} == {
        "data/train-00000-of-00001-0": (jpeg(3), "train"),
        **{f"data/validation-00000-of-00001-{row}": (jpeg(row), "val") for row in range(3)},
    }


@each_example("captions_of_every_shape", "column, values, expected")
def test_captions_of_every_shape(tmp_path, column, values, expected):
    pq.write_table(pa.table({"jpg": [jpeg(1)] * 3, column: values}), tmp_path / "a.parquet", row_group_size=2)
    items = list(listed(open_source(str(tmp_path / "a.parquet"))).values())
    assert [texts(item) for item in items] == expected
    assert column != "sentences" or items[2].captions[0].language == "fr"


def test_columns_take_precedence_over_settings(tmp_path):
    table = {"image": [jpeg(1), jpeg(2)], "text": ["a", "b"], "license": ["CC0", None], "language": ["fr", ""]}
    pq.write_table(pa.table({**table, "split": ["dev", None]}), tmp_path / "test.parquet")
    first, second = listed(open_source(str(tmp_path / "test.parquet"), license="mine")).values()
    assert (first.license, first.split, first.captions[0].language) == ("CC0", "val", "fr")
    assert (second.license, second.split, second.captions[0].language) == ("mine", "test", "en")


@pytest.mark.parametrize(("opener", "compression"), [(pa.ipc.new_stream, None), (pa.ipc.new_file, "zstd")])
def test_arrow_files_of_both_formats(tmp_path, opener, compression):
    table = pa.table({"key": ["k0", "k1", "k2"], "image": pa.array([jpeg(0), jpeg(1), jpeg(2)], pa.large_binary())})
    with opener(tmp_path / "a.arrow", table.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write_table(table, max_chunksize=2)
    items = listed(open_source(str(tmp_path / "a.arrow")))
    assert {key: content(item) for key, item in items.items()} == {f"k{number}": jpeg(number) for number in range(3)}


def test_the_image_column_is_found_by_feature_then_struct_then_name(tmp_path):
    image, encoded = {"bytes": jpeg(1), "path": "x"}, {"bytes": b"no", "path": "x"}
    features = {"image": {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}}
    features = datasets.Features({**features, "thumb": datasets.Image()})
    rows = {"image": [encoded], "thumb": [image]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "f.parquet")
    pq.write_table(pa.table({"image": [b"no"], "shot": [image]}), tmp_path / "s.parquet")
    pq.write_table(pa.table({"mask": [b"no"], "img": [jpeg(1)]}), tmp_path / "n.parquet")
    for name in "fsn":
        (item,) = listed(open_source(str(tmp_path / f"{name}.parquet"))).values()
        assert content(item) == jpeg(1)


def test_selections_and_names_outside_the_folder_are_refused(tmp_path):
    photos(0, 3).save_to_disk(tmp_path / "set")
    state = json.loads((tmp_path / "set" / "state.json").read_text())
    for change, message in (
        ({"_data_files": [{"filename": "../other.arrow"}]}, r"names '\.\./other\.arrow'"),
        ({"_indices_data_files": [{"filename": "i.arrow"}]}, r"flatten_indices\(\)"),
        ({"_data_files": [{"filename": "gone.arrow"}]}, r"gone\.arrow cannot be read"),
    ):
        (tmp_path / "set" / "state.json").write_text(json.dumps({**state, **change}))
        with pytest.raises(UsageError, match=message):
            open_source(str(tmp_path / "set"))


def test_unusable_datasets_are_refused(tmp_path):
    write(tmp_path, {"bad.parquet": "PAR1 this is not parquet", "empty.arrow": "", "two/x.md": ""})
    for name, table in {
        "text.parquet": {"n": [1], "text": ["x"]},
        "none.parquet": {"image": pa.array([], pa.binary())},
        "two/a.parquet": {"image": [jpeg(1)]},
        "two/b.parquet": {"img": [jpeg(1)]},
    }.items():
        pq.write_table(pa.table(table), tmp_path / name)
    for name, message in {
        "bad.parquet": "cannot be read",
        "empty.arrow": "cannot be read",
        "text.parquet": "has no column of images .* n: int64, text: string",
        "none.parquet": "holds no rows",
        "two": r"b\.parquet lacks 'image', unlike .*a\.parquet",
    }.items():
        with pytest.raises(UsageError, match=message):
            open_source(str(tmp_path / name))


def listed_of(table, path):
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table)
    source = open_source(str(path))
    return listed(source), source


@pytest.mark.parametrize(
    ("media", "captions"),
    [
        (pa.large_binary(), pa.dictionary(pa.int8(), pa.string())),
        (pa.binary_view(), pa.large_list(pa.string_view())),
        (pa.dictionary(pa.int32(), pa.binary()), pa.list_(pa.large_string(), 1)),
        (pa.struct({"bytes": pa.binary_view(), "path": pa.string_view()}), pa.list_view(pa.string())),
        (pa.struct({"bytes": pa.large_binary(), "path": pa.large_string()}), pa.map_(pa.string(), pa.string())),
    ],
)
def test_columns_of_every_type(tmp_path, media, captions):
    cells = [{"bytes": jpeg(n), "path": None} if pa.types.is_struct(media) else jpeg(n) for n in range(2)]
    texts_of = {pa.types.is_map: [("en", "x")], pa.types.is_dictionary: "x"}
    text = next((value for is_type, value in texts_of.items() if is_type(captions)), ["x"])
    ids = pa.array(["i", "j"]).dictionary_encode()
    table = pa.table(
        {"image": pa.array(cells).cast(media) if not pa.types.is_struct(media) else pa.array(cells, media)}
    )
    table = table.append_column("captions", pa.array([text, text], captions)).append_column("key", ids)
    items, _ = listed_of(table, tmp_path / "a.arrow")
    assert {key: (content(item), texts(item)) for key, item in items.items()} == {
        "i": (jpeg(0), ["x"]),
        "j": (jpeg(1), ["x"]),
    }


@pytest.mark.parametrize("kind", [pa.list_, pa.large_list, pa.list_view])
@pytest.mark.parametrize("is_encoded", [True, False])
def test_lists_of_pictures(tmp_path, kind, is_encoded):
    values = pa.struct({"bytes": pa.binary(), "path": pa.string()}) if is_encoded else pa.binary()
    cells = [[1], [], [2, 3], None]
    media = [cell and [{"bytes": jpeg(n), "path": None} if is_encoded else jpeg(n) for n in cell] for cell in cells]
    table = pa.table({"images": pa.array(media, kind(values)), "caption": ["x", "y", "z", None], "id": list("abcd")})
    items, source = listed_of(table, tmp_path / "a.arrow")
    if kind is not pa.list_view:
        pq.write_table(table, tmp_path / "a.parquet", row_group_size=3)
        assert list(listed(open_source(str(tmp_path / "a.parquet")))) == list(items)
    assert {key: (content(item), texts(item)) for key, item in items.items()} == {
        "a": (jpeg(1), ["x"]),
        "c-0": (jpeg(2), []),
        "c-1": (jpeg(3), []),
    }
    assert not_taken(source) == {"b": "no_media", "c": "unassigned_captions", "d": "no_media"}


def test_columns_by_language_twice_and_unknown(tmp_path):
    columns = {"image": [jpeg(1)], "caption_en": ["x"], "caption_pt_BR": ["y"], "German": [["z"]], "mood": ["calm"]}
    table = pa.table([*columns.values(), ["again"]], names=[*columns, "caption_en"])
    table = table.append_column("width", [[4]]).append_column("talk", [[[{"from": "gpt", "value": "w"}]]])
    items, source = listed_of(table, tmp_path / "a.arrow")
    (item,) = items.values()
    captions = [("x", "en"), ("again", "en"), ("y", "pt-BR"), ("z", "de")]
    assert sorted((caption.text, caption.language) for caption in item.captions) == sorted(captions)
    assert not_taken(source) == {"mood": "unknown_column", "talk": "unknown_column"}

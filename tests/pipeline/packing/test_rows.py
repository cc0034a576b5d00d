"""Texts and media of one training row."""

import io
import itertools

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from pipeline.errors import MediaError
from pipeline.media.images import Limits, encode_jpeg, fitting, probe
from pipeline.packing import rows
from pipeline.packing.filters import Filters
from pipeline.packing.rows import Source, join_captions, join_descriptions, pixel_budget, read_media, stack_frames
from tests.corpora import caption, description, item, translation


def source(prefix="", **rows):
    return Source(prefix, {"item_id": "a"}, rows)


def columns(rows):
    return [(row["caption_id"], row["language"], row["text"], row["origin"], row["quality"]) for row in rows]


def test_captions_then_translations_each_in_the_order_of_their_table():
    rows = source(
        captions=[caption("a", "One."), caption("a", "Zwei.", 0, "de"), caption("a", "By others.", 1, origin="mt")],
        translations=[translation("a#en#0", "fr", "Un.", quality=0.5), translation("a#en#0", "cs", "J.", quality=None)],
    )
    assert columns(join_captions([rows], Filters())) == [
        ("a#en#0", "en", "One.", "human", 1.0),
        ("a#de#0", "de", "Zwei.", "human", 1.0),
        ("a#en#1", "en", "By others.", "mt", 0.0),
        ("a#en#0>fr", "fr", "Un.", "mt", 0.5),
        ("a#en#0>cs", "cs", "J.", "mt", 0.0),
    ]


def test_filters_drop_translations_and_never_human_text():
    rows = source(
        captions=[caption("a", ""), caption("a", "Copied.", 1)],
        translations=[
            translation("a#en#0", "de", "", flags=["empty"]),
            translation("a#en#1", "de", "Copied.", copied=1.0),
        ],
    )
    assert [row["caption_id"] for row in join_captions([rows], Filters())] == ["a#en#0", "a#en#1", "a#en#1>de"]
    assert [row["text"] for row in join_captions([rows], Filters({"de": {"copied": 0.5}}))] == ["", "Copied."]


@pytest.mark.parametrize("flag", ["refusal", "loop", "wrong_language"])
def test_a_description_in_doubt_and_its_translation_are_left_out(flag):
    rows = source(
        descriptions=[description("a", "A cat.", flags=["cut"]), description("a", "I cannot.", "detail", flags=[flag])],
        translations=[
            translation("a#short", "de", "Eine Katze.", source_table="descriptions"),
            translation("a#detail", "de", "Ich kann nicht.", source_table="descriptions"),
            translation("a#detail", "de", "Of a caption.", source_table="captions"),
        ],
    )
    assert join_descriptions([rows], Filters()) == [{"view": "short", "text": "A cat."}]
    assert [row["text"] for row in join_captions([rows], Filters())] == ["Eine Katze.", "Of a caption."]
    kept = Filters({"descriptions": {flag: None}})
    assert len(join_descriptions([rows], kept)) == 2 and len(join_captions([rows], kept)) == 3


def test_descriptions_are_texts_of_their_language_too_unless_that_is_english():
    rows = source(
        captions=[
            caption("a", "A cat.", 0),
            caption("a", "A cat sits on a mat.", 0, origin="mllm"),
            caption("a", "A mat.", 3, origin="mllm"),
            caption("a", "Une natte.", 3, "fr", "mllm"),
        ],
        descriptions=[
            description("a", "Cat, mat."),
            description("a", "Eine Katze.", "kurz", language="de"),
            description("a", "A cat?", "lang", flags=["wrong_language"], language="de"),
        ],
    )
    assert columns(join_captions([rows], Filters())) == [
        ("a#en#0", "en", "A cat.", "human", 1.0),
        ("a#fr#3", "fr", "Une natte.", "mllm", 0.0),
        ("a#kurz", "de", "Eine Katze.", "mllm", 0.0),
    ]
    assert join_descriptions([rows], Filters()) == [
        {"view": "short", "text": "Cat, mat."},
        {"view": "kurz", "text": "Eine Katze."},
        {"view": "given-0", "text": "A cat sits on a mat."},
        {"view": "given-3", "text": "A mat."},
        {"view": "given-fr-3", "text": "Une natte."},
    ]


def test_a_given_translation_gives_way_to_its_measured_row():
    rows = source(
        captions=[
            caption("a", "One."),
            caption("a", "Eins.", 0, "de", "mt"),
            caption("a", "Zwei.", 1, "de", "mt"),
            caption("a", "Un.", 0, "fr", "mt"),
        ],
        translations=[
            translation("a#en#0", "de", "Eins.", copied=1.0),
            translation("a#one", "fr", "N.", source_table="x"),
        ],
    )
    assert [row["caption_id"] for row in join_captions([rows], Filters())][:3] == ["a#en#0", "a#de#1", "a#fr#0"]
    dropped = join_captions([rows], Filters({"de": {"copied": 0.5}}))
    assert "Eins." not in [row["text"] for row in dropped]


def test_a_text_of_an_earlier_corpus_is_not_repeated():
    first = source(
        "own/",
        captions=[caption("a", "A cat."), caption("a", "A cat.", 1)],
        translations=[
            translation("a#en#0", "de", "Eine Katze."),
            translation("a#en#0", "fr", "Un chat.", flags=["copied"]),
        ],
        descriptions=[description("a", "A cat."), description("a", "Grey.", "detail")],
    )
    second = source(
        "theirs/",
        captions=[caption("a", "A cat."), caption("a", "Eine Katze.", 0, "de"), caption("a", "New.", 1)],
        translations=[translation("a#en#0", "fr", "Un chat."), translation("a#en#0", "es", "Eine Katze.")],
        descriptions=[description("a", "A cat."), description("a", "Another word.")],
    )
    both = [first, second]
    assert [row["caption_id"] for row in join_captions(both, Filters())] == [
        "own/a#en#0",
        "own/a#en#1",  # within a corpus nothing is taken out
        "theirs/a#de#0",  # what a person wrote comes before the same words by a machine
        "theirs/a#en#1",
        "theirs/a#en#0>fr",  # the other one's was dropped
        "theirs/a#en#0>es",
    ]
    assert [tuple(row.values()) for row in join_descriptions(both, Filters())] == [
        ("short", "A cat."),
        ("detail", "Grey."),
        ("short", "Another word."),
    ]


def opened(data):
    image = Image.open(io.BytesIO(data))
    assert image.format == "JPEG"
    return image


def photo(path, size, quality=92, exif=None):
    rng = np.random.default_rng(1)
    image = Image.fromarray(rng.integers(0, 255, (6, 8, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
    image.save(path, "JPEG", quality=quality, **({"exif": exif} if exif else {}))
    return path


@given(st.integers(1, 6000), st.integers(1, 6000), st.integers(1, 1000))
@example(400, 500, 224)  # where the square root of the exact area falls short of 224
def test_the_shorter_side_is_the_size_and_the_shape_is_kept(width, height, size):
    fitted = fitting((width, height), pixel_budget(width, height, size))
    scale = min(1, size / min(width, height))
    assert min(fitted) == min(width, height, size)
    assert fitted == pytest.approx(
        (width * scale, height * scale), abs=1 + 0.03 * max(width, height) / min(width, height)
    )


def test_a_large_photo_is_shrunk_upright_and_a_small_one_is_not_enlarged(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = photo(tmp_path / "a.jpg", (600, 400), exif=exif)
    data, count = read_media(item(path, size=(400, 600)), str(path), 64, 8)
    assert (opened(data).size, count) == ((64, 96), 1)
    expected = Image.open(path).convert("RGB").transpose(Image.Transpose.ROTATE_270).resize((64, 96))
    difference = np.abs(np.asarray(opened(data), float) - np.asarray(expected, float))
    assert difference.mean() < 5
    assert opened(read_media(item(path, size=(400, 600)), str(path), 700, 8)[0]).size == (400, 600)


def test_a_jpeg_within_the_size_is_kept_less_its_metadata(tmp_path):
    exif = Image.Exif()
    exif[0x010E] = "a secret place"
    path = photo(tmp_path / "a.jpg", (90, 60), exif=exif)
    data, _ = read_media(item(path, size=(90, 60)), str(path), 60, 8)
    scan = path.read_bytes()[path.read_bytes().index(b"\xff\xda") :]
    assert data.endswith(scan) and b"secret" not in data and b"secret" in path.read_bytes()


def test_frames_of_a_video_stand_one_below_the_other(data):
    path = data / "clips" / "walk.mkv"
    with path.open("rb") as stream:
        info = probe(stream)
    row = item(path, size=(info.width, info.height), media_type="video")
    data, count = read_media(row, str(path), 96, 4)
    column = opened(data)
    scale = 96 / min(info.width, info.height)
    expected = (scale * info.width, 4 * scale * info.height)
    assert count == 4 and column.size == pytest.approx(expected, abs=4)
    parts = np.split(np.asarray(column, float), 4)
    middle, _ = read_media(row, str(path), 96, 1)  # the middle of the whole is between the second and the third
    to_the_middle = [np.abs(part - np.asarray(opened(middle), float)).mean() for part in parts]
    assert max(to_the_middle[1:3]) < min(to_the_middle[0], to_the_middle[3])
    assert all(np.abs(a - b).mean() > 0.5 for a, b in itertools.pairwise(parts))


def test_frames_of_other_sizes_are_fitted_and_too_many_are_refused():
    larger = Image.new("RGB", (40, 30), "blue")
    larger.paste("lime", (20, 0, 40, 30))
    column = stack_frames([Image.new("RGB", (20, 10), "red"), larger])
    assert column.size == (20, 20)
    assert [column.getpixel(place) for place in ((18, 5), (2, 15), (18, 15))] == [(255, 0, 0), (0, 0, 255), (0, 255, 0)]
    with pytest.raises(MediaError, match="--image-size or fewer --frames") as raised:
        stack_frames([Image.new("RGB", (1, 1000))] * 66)
    assert raised.value.kind == "too_large"
    assert len(encode_jpeg(stack_frames([Image.new("RGB", (1, 1000))] * 65))) > 0


@pytest.mark.parametrize(
    "spoil, kind",
    [
        (lambda path: photo(path, (90, 60), quality=50), "changed"),
        (lambda path: path.write_bytes(path.read_bytes()[:2000]), "changed"),
        (lambda path: path.unlink(), "missing"),
    ],
)
def test_media_that_are_not_what_was_ingested(tmp_path, spoil, kind):
    path = photo(tmp_path / "a.jpg", (90, 60))
    row = item(path, size=(90, 60))
    spoil(path)
    with pytest.raises(MediaError) as raised:
        read_media(row, str(path), 60, 8)
    assert raised.value.kind == kind


def test_a_picture_that_ingest_accepted_is_not_too_large(tmp_path, monkeypatch):
    path = photo(tmp_path / "a.jpg", (900, 600))
    monkeypatch.setattr(rows, "Limits", lambda max_source_pixels=1000: Limits(max_source_pixels))
    data, _ = read_media(item(path, size=(900, 600)), str(path), 60, 8)
    assert opened(data).size == (90, 60)


def test_features_stay_features_and_whole(tmp_path):
    array = np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32)
    array[0, 0] = 7e4  # too large for float16
    np.save(tmp_path / "a.npy", array)
    row = item(tmp_path / "a.npy", size=(0, 0), media_type="video")
    with pytest.raises(MediaError, match="--feature-type float32") as raised:
        read_media(row, row["uri"], 64, 8)
    assert raised.value.kind == "too_large"
    data, count = read_media(row, row["uri"], 64, 8, "float32")
    assert count == 20 and np.array_equal(np.load(io.BytesIO(data), allow_pickle=False), array)
    np.save(tmp_path / "a.npy", array[1:])
    row = item(tmp_path / "a.npy", size=(0, 0), media_type="video")
    stored = np.load(io.BytesIO(read_media(row, row["uri"], 64, 8)[0]), allow_pickle=False)
    assert stored.dtype == np.float16 and np.array_equal(stored, array[1:].astype(np.float16))

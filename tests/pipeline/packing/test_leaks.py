"""No content in two splits, if one of them is held out: found in one corpus and across corpora, whatever the names."""

import collections
import hashlib

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import UsageError
from pipeline.packing.leaks import content_hashes, refuse_leaks
from tests.conftest import make_photos
from tests.corpora import deal_corpus, item


@pytest.fixture
def photos(tmp_path):
    return make_photos(tmp_path / "photos", 4)


def copied(path, name):
    return path.parent.joinpath(name).write_bytes(path.read_bytes()) and path.parent / name


def test_a_photo_of_the_test_split_under_another_name_in_training(tmp_path, photos):
    other = copied(photos[3], "innocent.jpg")
    rows = [item(photos[0]), item(photos[1], split="val"), item(other), item(photos[3], split="test")]
    corpus = deal_corpus(tmp_path / "corpus", items=rows)
    with pytest.raises(UsageError) as raised:
        refuse_leaks([corpus])
    message = str(raised.value)
    assert message.startswith("1 item(s)") and "--stage ingest --overwrite" in message
    train, test = f"train item innocent.jpg at {other}", f"test item {photos[3].name} at {photos[3]}"
    assert f"{train} is the same picture as {test}" in message


def test_across_corpora_the_ids_have_the_name_of_their_corpus(tmp_path, photos):
    first = deal_corpus(tmp_path / "first", items=[item(photos[0]), item(photos[1])])
    second = deal_corpus(tmp_path / "second", items=[item(photos[2]), item(photos[1], split="test")])
    refuse_leaks([first])
    refuse_leaks([second])
    for both in ([first, second], [second, first]):
        with pytest.raises(UsageError, match=r"1 item.*train item first/photo-00001\.jpg .* second/photo-00001\.jpg"):
            refuse_leaks(both)


def test_hashes_that_end_in_zeros_or_differ_at_the_end_alone():
    digests = ["ab" * 31 + end for end in ("00", "01")] + ["00" * 32]
    _, found = content_hashes(pa.table({"sha256": digests}))
    assert len(set(found.tolist())) == 3
    assert [key.ljust(32, b"\0").hex() for key in found.tolist()] == digests


CONTENTS = [hashlib.sha256(bytes([number])).hexdigest() for number in range(6)]
ROWS = st.lists(
    st.tuples(st.sampled_from(CONTENTS), st.sampled_from(["train", "train", "test", "val", "dev"])), max_size=9
)


@settings(max_examples=60)
@given(st.lists(ROWS, min_size=1, max_size=3))
def test_as_a_plain_comparison_finds_them(tmp_path_factory, parts):
    folder, corpora, splits = tmp_path_factory.mktemp("leaks"), [], collections.defaultdict(list)
    order = list(dict.fromkeys(split for part in parts for _, split in part if split != "train"))
    for number, part in enumerate(parts):
        rows = [item(folder / "none", f"{row}", split, sha256=content) for row, (content, split) in enumerate(part)]
        corpora.append(deal_corpus(folder / f"c{number}", items=rows))
        for content, split in part:
            splits[content].append(split)
    leaks = 0
    for found in splits.values():
        held = sorted({split for split in found if split != "train"}, key=order.index)
        leaks += (found.count("train") if held else 0) + sum(split in held[1:] for split in found)
    if not leaks:
        refuse_leaks(corpora)
        return
    with pytest.raises(UsageError) as raised:
        refuse_leaks(corpora)
    assert str(raised.value).startswith(f"{leaks:,} item(s)")
    assert str(raised.value).count("is the same picture as") == min(leaks, 3)

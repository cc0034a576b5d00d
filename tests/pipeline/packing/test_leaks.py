"""No content in two splits, if one of them is held out: found in one corpus and across corpora, whatever the names."""

import collections
import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import UsageError
from pipeline.packing.contents import refuse_leaks
from tests.conftest import make_photos
from tests.corpora import deal_corpus, item


def test_across_corpora_the_ids_have_the_name_of_their_corpus(tmp_path):
    photos = make_photos(tmp_path / "photos", 3)
    first = deal_corpus(tmp_path / "first", items=[item(photos[0]), item(photos[1])])
    second = deal_corpus(tmp_path / "second", items=[item(photos[2]), item(photos[1], split="test")])
    refuse_leaks([first])
    refuse_leaks([second])
    for both in ([first, second], [second, first]):
        with pytest.raises(UsageError, match=r"1 item.*train item first/photo-00001\.jpg .* second/photo-00001\.jpg"):
            refuse_leaks(both)


CONTENTS = ["", *(hashlib.sha256(bytes([number])).hexdigest() for number in range(5))]  # "": without media
ROWS = st.lists(
    st.tuples(st.sampled_from(CONTENTS), st.sampled_from(["train", "train", "test", "val", "dev"])), max_size=9
)


@settings(max_examples=60)
@given(st.lists(ROWS, min_size=1, max_size=3))
def test_leaks_are_those_of_a_naive_comparison(tmp_path_factory, parts):
    folder, corpora, splits = tmp_path_factory.mktemp("leaks"), [], collections.defaultdict(list)
    for number, part in enumerate(parts):
        rows = [item(folder / "none", f"{row}", split, sha256=content) for row, (content, split) in enumerate(part)]
        corpora.append(deal_corpus(folder / f"c{number}", items=rows))
        for content, split in part:
            splits[content].append(split)
    splits.pop("", None)
    leaks = 0
    for of_content in splits.values():
        held_out = [split for split in of_content if split != "train"]
        leaks += sum(split != held_out[0] for split in of_content) if held_out else 0
    if not leaks:
        refuse_leaks(corpora)
        return
    with pytest.raises(UsageError) as raised:
        refuse_leaks(corpora)
    assert str(raised.value).startswith(f"{leaks:,} item(s)")
    assert str(raised.value).count("is the same as") == min(leaks, 3)

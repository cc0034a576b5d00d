"""Rows matched to media, against the rule spelled out in full."""

import posixpath

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.sources.matching import RowMatches

NAMES = st.sampled_from(["1.jpg", "2.jpg", "3.jpg"])
PATHS = st.builds(lambda folders, name: "/".join([*folders, name]), st.lists(st.sampled_from("ab"), max_size=2), NAMES)


def match(media, files, **place):
    matches = RowMatches(media, **place)
    for offset, file in enumerate(files):
        matches.add(file, offset)
    matches.finish()
    return matches, {path: list(matches.offsets(position)) for position, path in enumerate(media)}


@settings(max_examples=300, deadline=None)
@given(media=st.sets(PATHS, min_size=1), files=st.lists(PATHS, max_size=8))
def test_by_path_else_by_a_name_that_one_medium_and_one_row_path_have(media, files):
    media = sorted(media)
    expected = {path: [] for path in media}
    for number, file in enumerate(files):
        same_name = [path for path in media if posixpath.basename(path) == posixpath.basename(file)]
        rivals = {f for f in files if f not in media and posixpath.basename(f) == posixpath.basename(file)}
        if file in media:
            expected[file].append(number)
        elif len(same_name) == 1 and same_name[0] not in files and len(rivals) == 1:
            expected[same_name[0]].append(number)
    matches, result = match(media, files)
    assert result == expected
    assert len(files) == len(matches) + matches.unmatched + matches.ambiguous


def test_a_medium_with_a_row_of_its_own_gets_no_row_by_name():
    """old/a.jpg was deleted; its caption must not go to new/a.jpg."""
    matches, result = match(["new/a.jpg"], ["old/a.jpg", "new/a.jpg"])
    assert result == {"new/a.jpg": [1]} and matches.unmatched == 1


def test_paths_are_relative_to_the_side_file_or_to_the_media():
    assert match(["a/1.jpg", "b/1.jpg"], ["1.jpg", "b/1.jpg", " ./1.jpg"], folder="a/")[1] == {
        "a/1.jpg": [0, 2],
        "b/1.jpg": [1],
    }
    assert match(["1.jpg"], ["mine/1.jpg", "yours/1.jpg"], below="mine/")[1] == {"1.jpg": [0]}

"""Model folders told apart, and what they say of themselves."""

import json

import pytest

from pipeline.errors import UsageError
from pipeline.translation import checkpoints


@pytest.mark.parametrize(
    ("readme", "found"),
    [
        ("---\nlanguage:\n- en\nlicense: cc-by-4.0\n---\n# Model", "cc-by-4.0"),
        ("---\nlicense:\n- mit\n- other\n---\n", "mit other"),
        ("---\nlicense: [\n---\n", ""),
        ("---\nlanguage: en\n---\n", ""),
        ("# Model\nlicense: mit\n", ""),
        ("", ""),
    ],
)
def test_the_licence_stands_in_the_front_matter(tmp_path, readme, found):
    assert checkpoints.license_of(tmp_path) == ""
    (tmp_path / "README.md").write_text(readme)
    assert checkpoints.license_of(tmp_path) == found


@pytest.mark.parametrize(
    ("name", "is_so"),
    [("cc-by-nc-4.0", True), ("CC BY-NC-SA 4.0", True), ("non-commercial", True), ("Noncommercial use", True),
     ("cc_by_nc_4.0", True), ("cc-by-nc4", True), ("NC", True), ("Creative Commons, non_commercial", True),
     ("non\u2011commercial", True), ("Licence of ACME Inc.", False), ("cc-by-4.0-ncx", False),
     ("cc-by-4.0", False), ("apache-2.0", False), ("", False), ("sync-1.0", False)],
)  # fmt: skip
def test_noncommercial_licences_are_known(name, is_so):
    assert checkpoints.noncommercial(name) is is_so


@pytest.mark.parametrize(
    ("name", "config", "pair"),
    [
        ("opus-mt-en-de", {}, ("en", "de")),
        ("Helsinki-NLP/opus-mt-tc-big-en-fr", {}, ("en", "fr")),
        ("mine", {"source_lang": "eng", "target_lang": "deu"}, ("eng", "deu")),
        ("opus-mt-en-gem", {"target_lang": None}, ("en", "gem")),
        ("opus-mt-en-roman", {}, ("", "")),
        ("mine", {}, ("", "")),
    ],
)
def test_the_pair_as_far_as_it_is_told(tmp_path, name, config, pair):
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    assert checkpoints.pair_of(tmp_path, name) == pair


def test_configurations_that_are_none(tmp_path):
    assert checkpoints.configuration(tmp_path) == {}
    for text in ("{", "[]"):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(
            UsageError, match=r"config\.json (is no JSON|holds no JSON object).*: fetch the model again"
        ):
            checkpoints.configuration(tmp_path)


@pytest.mark.parametrize("name", ["/no/such/folder", "no such folder", "a/b/c", "nothing-here"])
def test_names_that_no_hub_has_are_refused_without_asking_it(name):
    with pytest.raises(UsageError, match=r"is no folder: wanted the folder of a model, or a name on the model hub"):
        checkpoints.find(name)

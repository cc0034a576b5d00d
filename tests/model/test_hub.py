"""Models by name: folders, typing mistakes, and a Hub that does not answer."""

import json

import pytest
from huggingface_hub import constants

from model import hub
from model.hub import locate_model

KEYWORDS = ("embedded", "tiny", "features")


@pytest.fixture(autouse=True)
def unreachable(monkeypatch, tmp_path):
    """No Hub, an empty cache; a list of what was asked of the Hub."""
    asked = []

    class Session:
        def head(self, url, **_):
            asked.append(url)
            raise ConnectionError

    hub._hub_answers.cache_clear()
    monkeypatch.setattr(hub, "get_session", Session)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    yield asked
    hub._hub_answers.cache_clear()


def write_model(folder):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    return folder


def test_a_folder_is_taken_with_its_tilde(tmp_path):
    folder = write_model(tmp_path / "models" / "own")
    assert locate_model("~/models/own") == locate_model(str(folder)) == str(folder)


@pytest.mark.parametrize("name", ["embeded", "Embedded", "embbedded", "tinny", "feature"])
def test_a_mistyped_keyword_never_reaches_the_hub(name, unreachable):
    with pytest.raises(ValueError, match="did you mean"):
        locate_model(name, KEYWORDS)
    assert not unreachable


@pytest.mark.parametrize("name", ["~/models/none", "../models/none", "/models/none", "a/b/c"])
def test_what_is_neither_a_folder_nor_a_name_is_refused(name, unreachable):
    with pytest.raises(ValueError, match="does not exist"):
        locate_model(name, KEYWORDS)
    assert not unreachable


def test_folders_without_a_whole_model_are_refused(tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "acme/base"}))
    with pytest.raises(ValueError, match=r"adapter of acme/base.*merge"):
        locate_model(str(tmp_path))
    (tmp_path / "adapter_config.json").unlink()
    with pytest.raises(ValueError, match=r"without config\.json"):
        locate_model(str(tmp_path))


def test_without_network_a_model_comes_from_the_cache_and_the_hub_is_asked_once(tmp_path, unreachable):
    snapshot = "a" * 40
    home = tmp_path / "cache" / "models--acme--model"
    write_model(home / "snapshots" / snapshot)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text(snapshot)
    assert locate_model("acme/model", KEYWORDS) == "acme/model" and constants.HF_HUB_OFFLINE
    with pytest.raises(ValueError, match="cannot be reached"):
        locate_model("acme/other", KEYWORDS)
    assert len(unreachable) == 1

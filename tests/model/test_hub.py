"""Models by name: folders, typing mistakes, and a Hub that does not answer."""

import json

import pytest
import torch
from huggingface_hub import constants
from peft import LoraConfig, get_peft_model
from transformers import AutoModel

from model import hub
from model.hub import locate_model
from stages.scoring.baselines import load_baseline
from tests.http_servers import serving
from tests.hub import Hub
from tests.stages.duals import write_dual

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
    monkeypatch.setattr(hub.hf, "get_session", Session)
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


def test_an_adapter_is_merged_into_its_base_model(tmp_path, monkeypatch):
    monkeypatch.setattr("platformdirs.user_cache_path", lambda *_, **__: tmp_path / "cache")
    base = write_dual(tmp_path / "base", "siglip")
    model = get_peft_model(
        AutoModel.from_pretrained(base), LoraConfig(target_modules=["q_proj"], init_lora_weights=False)
    )
    model.save_pretrained(tmp_path / "adapter")
    located = locate_model(str(tmp_path / "adapter"))
    assert locate_model(str(tmp_path / "adapter")) == located
    (merged, _), (plain, read) = load_baseline(located), load_baseline(str(base))
    texts = read.texts(["rot", "blau"])
    expected = model.get_text_features(input_ids=texts.tokens).pooler_output
    torch.testing.assert_close(merged.encode_text(texts), torch.nn.functional.normalize(expected, dim=-1))
    assert (merged.encode_text(texts) - plain.encode_text(texts)).abs().max() > 0.01
    settings = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    other = write_dual(tmp_path / "other", "vision-text-dual-encoder")
    settings |= {"base_model_name_or_path": str(other), "target_modules": ["query"]}
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match="does not fit its base model"):
        locate_model(str(tmp_path / "adapter"))


def test_folders_without_a_whole_model_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"without config\.json"):
        locate_model(str(tmp_path))
    (tmp_path / "open_clip_config.json").write_text("{}")
    with pytest.raises(ValueError, match="open_clip"):
        locate_model(str(tmp_path))


@pytest.mark.parametrize(("refusal", "message"), [("GatedRepo", "gated: accept"), ("RepoNotFound", "another name now")])
def test_models_that_are_gated_or_have_moved_are_named(tmp_path, monkeypatch, refusal, message):
    with serving(Hub, folder=tmp_path, refusal=refusal) as server:
        monkeypatch.undo()  # the Hub answers
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        with pytest.raises(ValueError, match=f"acme/model: .*{message}.*auth login"):
            locate_model("acme/model")


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

"""Which captioner a run uses: the one asked for, else what the machine has."""

import argparse
import json

import pytest

from pipeline.captioning import captioners as module
from pipeline.captioning.captioners import DEFAULT_MODEL, URL_VARIABLE, EmbeddedCaptioner, MllmCaptioner, ServerOptions
from pipeline.captioning.chat_client import KEY_VARIABLE
from pipeline.captioning.prompts import parse_views
from pipeline.captioning.vllm_server import READY_WITHIN_S
from pipeline.errors import EnvironmentTrouble, UsageError
from pipeline.options import add_options, read_options
from stages.captions import Captions
from tests.loopback import Loopback
from tests.pipeline.captioning.test_vllm_server import Fake, healthy
from tests.worked_examples import each_example

VIEWS = parse_views("short")


@pytest.fixture(autouse=True)
def bare(monkeypatch, tmp_path):
    """A machine with no address in its environment and no GPU, whatever this one has."""
    monkeypatch.delenv(URL_VARIABLE, raising=False)
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))


def chosen(*arguments, captioner="auto", views="short"):
    parser = argparse.ArgumentParser()
    add_options(parser, ServerOptions)
    servers = read_options(ServerOptions, parser.parse_args(list(map(str, arguments))))
    lines = []
    return module.choose_captioner(captioner, servers, parse_views(views), lines.append), "\n".join(lines)


def program(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_nothing_asked_for_and_nothing_there_is_the_embedded_describer():
    captioner, line = chosen()
    assert isinstance(captioner, EmbeddedCaptioner)
    assert captioner.name.startswith("embedded:") and captioner.revision
    assert "embedded" in line and "not a language model" in line and URL_VARIABLE in line


def test_addresses_count_first_those_given_before_those_of_the_environment(monkeypatch, server):
    monkeypatch.setenv(URL_VARIABLE, f" {server.url}, {server.url}/v1 ,")
    captioner, line = chosen()
    assert captioner.urls == (server.url, f"{server.url}/v1")
    assert captioner.name == "loopback" and line.endswith(f"(${URL_VARIABLE})")
    captioner, line = chosen("--mllm-url", server.url, "--attempts", 3, "--patience", 7, "--window", 5)
    assert captioner.urls == (server.url,) and line.endswith("(--mllm-url)")
    assert (captioner.retries.attempts, captioner.retries.patience_s, captioner.window) == (3, 7.0, 5)
    assert isinstance(chosen(captioner="embedded")[0], EmbeddedCaptioner)


def test_the_key_of_the_environment_is_used_and_not_printed(monkeypatch):
    monkeypatch.setenv(KEY_VARIABLE, "geheim\n")
    with Loopback(api_key="geheim") as server:
        captioner, line = chosen("--mllm-url", server.url)
        assert captioner.name == "loopback"
    assert "geheim" not in line + repr(captioner)


def test_the_embedded_describer_asks_no_server():
    with pytest.raises(UsageError, match="--captioner embedded asks no server"):
        chosen("--mllm", "some/model", captioner="embedded")


@pytest.mark.parametrize("given", [("--system-prompt", "Be brief."), ("--extra-body", "{}")])
@pytest.mark.parametrize("captioner", ["auto", "embedded"])
def test_the_embedded_describer_takes_nothing_for_servers(captioner, given):
    with pytest.raises(UsageError, match=f"no {given[0]}|and no {given[0]}"):
        chosen(*given, captioner=captioner)


def test_extras_are_part_of_the_settings_and_of_each_answers_decoding():
    given = ("--mllm", "m", "--extra-body", '{"seed": null, "a": 1}', "--system-prompt", "Be brief.")
    with_extras, without = (Captions(chosen(*more)[0], VIEWS) for more in (given, given[:2]))
    assert with_extras.settings() == without.settings() | {
        "extra_body": {"seed": None, "a": 1},
        "system_prompt": "Be brief.",
    }
    decoding, usual = (json.loads(stage.decoding(VIEWS[0], "image")) for stage in (with_extras, without))
    assert decoding == usual | {"extra_body": {"seed": None, "a": 1}, "system_prompt": "Be brief."}


@each_example("what_cannot_be_sent_is_refused", "option, value, word")
def test_what_cannot_be_sent_is_refused(option, value, word, capsys):
    with pytest.raises(SystemExit):
        chosen(option, value)
    assert word in capsys.readouterr().err


def test_views_that_the_describer_cannot_answer_are_refused(tmp_path):
    (tmp_path / "mine.yaml").write_text("mood: {prompt: What is the mood?}")
    with pytest.raises(UsageError, match="mood"):
        chosen(views=str(tmp_path / "mine.yaml"))


def test_a_server_is_started_if_asked_for():
    captioner, line = chosen(captioner="vllm")
    assert (captioner.urls, captioner.name) == ((), DEFAULT_MODEL) and "started by this run" in line
    captioner, _ = chosen("--mllm", "some/model", "--mllm-revision", "abc", "--vllm-args", "--limit '{\"image\":8}'")
    assert (captioner.urls, captioner.name, captioner.revision) == ((), "some/model", "abc")
    assert captioner.vllm_args == ("--limit", '{"image":8}')


def test_a_server_is_started_if_a_device_and_vllm_are_available(tmp_path):
    has, lacks = program(tmp_path / "has", "exit 0"), program(tmp_path / "lacks", "exit 1")
    assert isinstance(chosen("--vllm-python", has)[0], EmbeddedCaptioner)  # no nvidia-smi
    smi = program(tmp_path / "bin" / "nvidia-smi", "echo 'GPU 0: a device'")
    captioner, line = chosen("--vllm-python", has)
    assert (captioner.urls, captioner.name) == ((), DEFAULT_MODEL) and "a CUDA device" in line
    assert isinstance(chosen("--vllm-python", lacks)[0], EmbeddedCaptioner)
    with pytest.raises(EnvironmentTrouble, match="--vllm-python"):
        chosen("--vllm-python", "/no/such/python")
    program(smi, "echo 'No devices found'; exit 9")
    assert isinstance(chosen("--vllm-python", has)[0], EmbeddedCaptioner)


def test_the_revision_of_a_local_model_is_the_hash_of_its_files(tmp_path):
    revisions = set()
    for text in ('{"layers": 2}', '{"layers": 3}'):
        (tmp_path / "config.json").write_text(text)
        revisions |= {chosen("--mllm", tmp_path)[0].revision, chosen("--mllm", tmp_path)[0].revision}
    assert len(revisions) == 2
    assert chosen("--mllm", "no/folder")[0].revision == ""


def test_a_server_is_started_only_for_a_captioner_that_has_none(tmp_path):
    fake = Fake(tmp_path / "fake")
    own = MllmCaptioner((), "tiny", vllm_python=str(fake.python))
    with module.served(own, fake.corpus, fake.lines.append) as captioner:
        assert healthy(captioner.urls[0])
        assert captioner.name == "tiny"
        assert captioner.retries.patience_s >= READY_WITHIN_S  # as long as a restart may take
    assert fake.left() == []
    for ready in (MllmCaptioner(("http://host/v1",), "tiny"), EmbeddedCaptioner("embedded:x", "1")):
        with module.served(ready, fake.corpus, fake.lines.append) as captioner:
            assert captioner is ready
    assert len(fake.starts()) == 1

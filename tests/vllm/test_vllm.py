"""The whole path against the real vLLM server on the CPU: started by the stage, killed in mid-run, ended with it."""

import asyncio
import contextlib
import itertools
import json
import os
import shlex
import signal
import subprocess
import time

import psutil
import pytest
import torch
import transformers as hf
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

from pipeline.captioning.chat_client import ChatClient, Retries, media_of
from pipeline.captioning.prompts import BUILT_IN
from pipeline.captioning.servers import KEY_FILE
from pipeline.captioning.vllm_server import VllmServer
from pipeline.corpus.table import Table
from pipeline.engine.run_state import locked, read_progress, run_folder
from stages import score
from tests.conftest import ROOT, clean_environment, command, make_photos
from tests.pipeline.captioning.test_vllm_server import wait_for
from tests.pipeline.media.test_video import encoded
from tests.stages.corpora import write_training_corpus
from tests.stages.duals import MARKS, words_tokenizer

PYTHON = ROOT / ".venv-vllm" / "bin" / "python"
PHOTOS = 60
SERVER_ARGUMENTS = "--enforce-eager --max-model-len 512 --dtype bfloat16 --limit-mm-per-prompt '{\"image\": 8}'"

pytestmark = [
    pytest.mark.skipif(
        not (ROOT / ".venv-vllm" / ".pins").exists(),
        reason="VLLM IS NOT INSTALLED: tests/vllm/setup_env.sh said why; nothing was tested against the real server",
    ),
    pytest.mark.timeout(900),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A folder with a random-weight Idefics3, made on the spot."""
    folder = tmp_path_factory.mktemp("model") / "tiny"
    subprocess.run([PYTHON, ROOT / "tests" / "vllm" / "make_model.py", folder], check=True, timeout=600)
    return folder


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    folder = tmp_path_factory.mktemp("media")
    make_photos(folder, PHOTOS, size=(96, 80))
    encoded(folder / "clip.mp4", num_frames=30)
    return folder


def start(model, media, corpus, *stage):
    arguments = (*(stage or ("--stage", "captions", "--captioner", "vllm")), "--input", media, "--output", corpus)
    server = ("--mllm", model, "--vllm-python", PYTHON, "--vllm-args", SERVER_ARGUMENTS)
    environment = clean_environment(VLLM_CPU_KVCACHE_SPACE="1", HF_HUB_OFFLINE="1")
    lines = command(*arguments, *server, "--shard-size", 16)
    return subprocess.Popen(lines, env=environment, stdout=subprocess.PIPE, text=True)


def servers(model):
    """Process ids of whatever runs with this model on its command line, the stage itself left out."""
    lines = {process.pid: " ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])}
    own = ("beam_runner.py", "guard.py")
    return [pid for pid, line in lines.items() if str(model) in line and not any(name in line for name in own)]


def check_corpus(model, corpus):
    rows = list(Table(corpus, "descriptions").rows())
    assert Table(corpus, "descriptions").failures() == []
    items = [*(f"photo-{i:05d}.jpg" for i in range(PHOTOS)), "clip.mp4"]
    assert sorted((row["item_id"], row["view"]) for row in rows) == sorted(itertools.product(items, BUILT_IN))
    for row in rows:
        assert row["text"]
        assert row["captioner"] == str(model)
        assert row["revision"]
        assert row["finish_reason"] in ("stop", "length")
        assert row["prompt_tokens"] > 0
        assert 0 < row["completion_tokens"] <= BUILT_IN[row["view"]].max_tokens
        assert len(row["frame_times_s"]) == (8 if row["item_id"] == "clip.mp4" else 0)


def test_the_stage_starts_the_server_and_describes_photos_and_a_clip(model, media, tmp_path):
    process = start(model, media, tmp_path / "corpus")
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    assert "vLLM: ready after" in output
    check_corpus(model, tmp_path / "corpus")
    assert servers(model) == []


def test_the_same_server_translates(model, media, tmp_path):
    """A model with random weights translates nothing: its answers are kept, scored low and flagged."""
    texts = {f"photo-{i:05d}.jpg": [f"Photo number {i} of a dog."] for i in range(PHOTOS)}
    captions = "".join(json.dumps({"file": name, "captions": of}) + "\n" for name, of in texts.items())
    (media / "captions.jsonl").write_text(captions, encoding="utf-8")
    stage = ("--stage", "translate", "--translator", "llm", "--languages", "de,cs", "--quality-encoder", "none")
    process = start(model, media, tmp_path / "corpus", *stage)
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    rows = list(Table(tmp_path / "corpus", "translations").rows())
    assert {(row["source_text"], row["target_language"]) for row in rows} == {
        (text, language) for [text] in texts.values() for language in ("de", "cs")
    }
    assert len(rows) == 2 * PHOTOS and Table(tmp_path / "corpus", "translations").failures() == []
    assert sum(bool(row["flags"]) for row in rows) > PHOTOS
    assert max(row["scores"]["quality"] for row in rows) < 0.5
    assert servers(model) == []


def test_the_server_repeats_request_ids_and_its_connections_are_kept_alive(model, media, tmp_path, monkeypatch):
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    media_parts = media_of([(media / "photo-00000.jpg").read_bytes()])

    async def ask(url, key):
        client = ChatClient([url], str(model), 4, Retries(), key)
        try:
            ports = []
            for _ in range(8):
                await client.ask(BUILT_IN["short"], "What is this?", media_parts)
                (pool,) = client._keeping.connector._conns.values() or [[]]
                ports.append([protocol.transport.get_extra_info("sockname")[1] for protocol, *_ in pool])
            return client._endpoints[0].echoes, ports, next(client._numbers)
        finally:
            await client.close()

    with (
        locked(tmp_path),
        VllmServer(str(model), tmp_path, print, str(PYTHON), shlex.split(SERVER_ARGUMENTS)) as server,
    ):
        key = (run_folder(tmp_path) / KEY_FILE).read_text()
        echoes, ports, requests = asyncio.run(ask(server.url, key))
    assert echoes and requests == 8  # none was sent twice
    assert ports[0] == [] and len(ports[1]) == 1 and ports[1:] == [ports[1]] * 7


def test_killed_in_mid_run_the_server_is_started_again_and_nothing_is_lost(model, media, tmp_path):
    corpus = tmp_path / "corpus"
    process = start(model, media, corpus)
    assert wait_for(
        lambda: process.poll() is not None or read_progress(corpus)["captions"].counts["requests"] >= 40, 600
    )
    for number in servers(model):
        with contextlib.suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    assert "vLLM: died, starting it again (1 of" in output
    check_corpus(model, corpus)
    assert servers(model) == []


def test_an_interrupted_stage_leaves_no_server(model, media, tmp_path):
    process = start(model, media, tmp_path / "corpus")
    while process.poll() is None and not servers(model):
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert wait_for(lambda: not servers(model), 60)


def test_an_embedding_model_scores_alike_behind_the_server(tmp_path, monkeypatch, capfd):
    torch.manual_seed(0)
    sizes = {"hidden_size": 128, "intermediate_size": 128, "num_hidden_layers": 2, "head_dim": 64}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64}
    words = words_tokenizer("")
    for part in (words, hf.Qwen3Model(hf.Qwen3Config(**sizes, **heads, **MARKS, vocab_size=len(words)))):
        part.save_pretrained(tmp_path / "tower")
    layers = [Transformer(str(tmp_path / "tower"), max_seq_length=60), Pooling(128, "lasttoken"), Normalize()]
    SentenceTransformer(modules=layers, device="cpu").save(str(tmp_path / "model"))
    corpus, reports = write_training_corpus(tmp_path / "corpus", 12), []
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    arguments = ["--runner", "pooling", "--enforce-eager", "--dtype", "float32", "--max-model-len", "60"]
    with locked(tmp_path), VllmServer(str(tmp_path / "model"), tmp_path, print, str(PYTHON), arguments) as server:
        monkeypatch.setenv("LECCR_MLLM_API_KEY", (run_folder(tmp_path) / KEY_FILE).read_text())
        for name in (f"{server.url}#{tmp_path / 'model'}", str(tmp_path / "model")):
            given = ["--checkpoint", name, "--data", str(corpus), "--output", str(tmp_path / "scores.json")]
            assert score.main(given) == 0
            reports.append(json.loads((tmp_path / "scores.json").read_text())["languages"])
    assert reports[0] == reports[1]
    assert "the smallest cosine is 1.0000" in capfd.readouterr().err

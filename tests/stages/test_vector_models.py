"""Models of Sentence Transformers, and those behind an embeddings server, are scored and indexed as they are."""

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as hf
from PIL import Image
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Router, Transformer

from model.batch import Texts
from model.encoders import build_text_encoder, load_text_encoder
from model.encoders.transformers_towers import sentence_layers
from model.processing import LeccrProcessor
from pipeline.errors import EnvironmentTrouble, UsageError
from stages import index, score, search
from stages.scoring.baselines import load_baseline
from stages.scoring.checkpoint import find_checkpoint
from tests.http_servers import QuietHandler, serving
from tests.model.towers import picture
from tests.stages.corpora import write_training_corpus
from tests.stages.duals import MARKS, WIDTHS, words_tokenizer, write_dual

TEXTS = ["red green", "blau " * 40, "dunkel"]
PROMPTS = {"query": "red: ", "document": "blue: "}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_training_corpus(tmp_path_factory.mktemp("vectors") / "corpus", 8, splits={"train": 0.5, "val": 0.5})


def write_dual_model(folder):
    model = SentenceTransformer(str(write_dual(folder / "clip", "clip")), device="cpu")
    model.max_seq_length = 16
    model.save(str(folder / "model"))
    return folder / "model"


def write_text_model(folder):
    """Mean pooling, a dense layer, a norm and prompts, as embedding models have them."""
    torch.manual_seed(1)
    tower = hf.XLMRobertaModel(
        hf.XLMRobertaConfig(**WIDTHS, **MARKS, vocab_size=len(words_tokenizer("")), max_position_embeddings=40)
    )
    for part in (tower, words_tokenizer("")):
        part.save_pretrained(folder / "tower")
    layers = [Transformer(str(folder / "tower"), max_seq_length=32), Pooling(32, "mean"), Dense(32, 16), Normalize()]
    SentenceTransformer(modules=layers, prompts=PROMPTS, device="cpu").save(str(folder / "model"))
    return folder / "model"


def write_router(folder):
    """Two towers behind a router by modality."""
    dual = write_dual_model(folder)
    routes = {"text": [Transformer(str(dual))], "image": [Transformer(str(dual))]}
    SentenceTransformer(modules=[Router(routes)], device="cpu").save(str(folder / "router"))
    return folder / "router"


@pytest.mark.parametrize("write", [write_dual_model, write_text_model, write_router])
def test_a_sentence_transformer_is_scored_indexed_and_searched(tmp_path, corpus, write, capsys):
    folder, data = str(write(tmp_path)), ["--data", str(corpus)]
    assert score.main(["--checkpoint", folder, *data, "--output", str(tmp_path / "scores.json")]) == 0
    assert json.loads((tmp_path / "scores.json").read_text())["languages"]
    assert index.main(["--checkpoint", folder, *data, "--output", str(tmp_path / "index")]) == 0
    capsys.readouterr()
    assert search.main(["--index", str(tmp_path / "index"), "rot", "-k", "3", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out.splitlines()[-1])["hits"]) == 3


def test_two_towers_give_the_vectors_of_the_dual_encoder(tmp_path):
    folder = write_dual_model(tmp_path)
    model, processor, fusion = find_checkpoint(str(folder)).load()
    reference, prepare = load_baseline(str(tmp_path / "clip"))
    items = [[picture(0)], [picture(1), picture(2, (90, 33))]]
    with torch.no_grad():
        for own, other in zip(
            [model.encode_text(processor.texts(TEXTS)), model.encode_media(processor.media(items), None)[0]],
            [reference.encode_text(prepare.texts(TEXTS)), reference.encode_media(prepare.media(items), None)[0]],
            strict=True,
        ):
            torch.testing.assert_close(own, other, atol=1e-5, rtol=0)
    assert fusion is None


def test_queries_and_descriptions_have_their_prompts_and_can_be_shortened(tmp_path):
    folder = write_text_model(tmp_path)
    reference = SentenceTransformer(str(folder), device="cpu")
    for suffix, width in (("", 16), ("@8", 8)):
        model, processor, fusion = find_checkpoint(f"{folder}{suffix}").load()
        with torch.no_grad():
            queries = model.encode_text(processor.texts(TEXTS)).numpy()
            _, views_BVE = model.encode_media(processor.media([[picture(0)]]), processor.descriptions([TEXTS]), False)
        for vectors, prompt in ((queries, PROMPTS["query"]), (views_BVE[0].numpy(), PROMPTS["document"])):
            expected = reference.encode([prompt + text for text in TEXTS])[:, :width]
            np.testing.assert_allclose(vectors, expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-5)
        assert fusion.global_weight == 0  # it reads no pictures


OPEN_CLIP = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 32, "head_width": 16, "layers": 1},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}


def test_a_folder_of_open_clip_gives_the_vectors_of_that_package(tmp_path):
    open_clip = pytest.importorskip("open_clip", reason="it needs torchvision", exc_type=Exception)
    torch.manual_seed(0)
    reference = open_clip.CLIP(**OPEN_CLIP).eval()
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": OPEN_CLIP, "preprocess_cfg": {}}))
    save_file(reference.state_dict(), tmp_path / "open_clip_model.safetensors")
    model, processor, _ = find_checkpoint(str(tmp_path)).load()
    _, prepare = open_clip.create_model_from_pretrained(f"local-dir:{tmp_path}")
    frames = [picture(0), picture(1, (90, 33))]
    with torch.no_grad():
        frames_FE = torch.nn.functional.normalize(
            reference.encode_image(torch.stack(list(map(prepare, frames)))), dim=1
        )
        text_ME = reference.encode_text(open_clip.tokenize(["red green", "eine katze"]))
    videos, _ = model.encode_media(processor.media([frames[:1], frames]), None)
    torch.testing.assert_close(videos[0], frames_FE[0])
    torch.testing.assert_close(videos[1], torch.nn.functional.normalize(frames_FE.mean(0), dim=0))
    queries = model.encode_text(processor.texts(["red green", "EINE KATZE"]))
    torch.testing.assert_close(queries, torch.nn.functional.normalize(text_ME, dim=1))


@pytest.mark.parametrize("pickled", [False, True])
def test_a_text_tower_has_the_layers_and_prompts_of_its_modules(tmp_path, pickled):
    folder = str(write_text_model(tmp_path))
    (weights,) = Path(folder).glob("*_Dense/model.safetensors")
    if pickled:  # as older models are
        torch.save(load_file(weights), weights.with_name("pytorch_model.bin"))
        weights.unlink()
    reference = SentenceTransformer(folder, device="cpu")
    encoder, spec = load_text_encoder(folder)
    of = LeccrProcessor.create("tiny", folder, max_tokens=32)
    built = build_text_encoder(json.loads(json.dumps(spec)))
    built.load_state_dict(encoder.state_dict())
    views = of.descriptions([["red green", ""]])
    assert views.mask.any(2).tolist() == [[True, False]]
    for tower in (encoder.eval(), built.eval()):
        assert tower.pooled_width == 16
        with torch.no_grad():
            queries, texts = (tower(it)[1] for it in (of.texts(TEXTS), Texts(*(it[0, :1] for it in views))))
        for own, expected in ((queries, reference.encode_query(TEXTS)), (texts, reference.encode_document(TEXTS[:1]))):
            np.testing.assert_allclose(torch.nn.functional.normalize(own, dim=1), expected, atol=1e-5)


def test_modules_that_a_text_tower_does_not_have_are_refused(tmp_path):
    with pytest.raises(ValueError, match="has a module Router"):
        sentence_layers(str(write_router(tmp_path)))


@pytest.fixture
def server():
    """An embeddings server whose vectors are colours: of a picture its mean, of a text its numbers."""
    state = {"fail": 2, "requests": []}

    class Handler(QuietHandler):
        def answer(self, status, body):
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def do_GET(self):
            self.answer(200, {"data": [{"id": "colours"}]})

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            state["requests"].append(body)
            if state["fail"] and "messages" in body:
                state["fail"] -= 1
                return self.answer(503, {"error": "busy"})
            if "messages" in body:
                url = body["messages"][0]["content"][0]["image_url"]["url"]
                image = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))
                vectors = [np.asarray(image, float).mean((0, 1)).tolist()]
            else:
                vectors = [[float(len(text)), 1.0, float(text.count("a"))] for text in body["input"]]
            rows = [{"index": place, "embedding": vector} for place, vector in enumerate(vectors)]
            return self.answer(200, {"data": rows[::-1]})

    with serving(Handler) as http:
        yield f"{http.url}/v1", state


def test_a_server_embeds_texts_and_pictures_in_order_and_through_faults(server):
    url, state = server
    model, processor, _ = find_checkpoint(url).load()
    texts = [f"{'a' * count} b" for count in range(150)]
    vectors = model.encode_text(processor.texts(texts)).numpy()
    expected = np.array([[len(text), 1.0, text.count("a")] for text in texts])
    np.testing.assert_allclose(vectors, expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-5)
    colours = [(250, 10, 10), (10, 250, 10), (10, 10, 250)]
    items = [[Image.new("RGB", (32, 32), colour)] for colour in colours]
    media = model.encode_media(processor.media(items), None)[0].numpy()
    assert media.argmax(1).tolist() == [0, 1, 2] and state["fail"] == 0
    assert {body["model"] for body in state["requests"]} == {"colours"}


def test_what_cannot_be_loaded_is_one_clear_message(tmp_path):
    (tmp_path / "modules.json").write_text("[{]")
    with pytest.raises(UsageError, match="cannot be loaded"):
        find_checkpoint(str(tmp_path)).load()
    with pytest.raises(EnvironmentTrouble, match="gave no vectors"):
        find_checkpoint("http://127.0.0.1:9/v1").load()

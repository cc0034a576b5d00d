"""Every family of dual encoders goes through training, scoring, index and search."""

import json

import numpy as np
import pytest
import torch
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

from stages import index, score, search, train
from stages.scoring.baselines import load_baseline
from tests.model.towers import picture
from tests.stages.corpora import write_training_corpus
from tests.stages.duals import MODELS, write_dual

COMMON = ("clip", "siglip2")  # the others have their vectors compared below
SMALL = ("batch_size=4", "steps=2", "validate_every=2", "lr=1e-4", "slots=none", "log_every=1")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_training_corpus(tmp_path_factory.mktemp("duals") / "corpus", 8, splits={"train": 0.6, "val": 0.4})


@pytest.mark.parametrize(
    "kind", [*COMMON, *(pytest.param(kind, marks=pytest.mark.torture) for kind in MODELS if kind not in COMMON)]
)
def test_a_family_goes_through_every_program(tmp_path, corpus, kind, capsys):
    folder = str(write_dual(tmp_path / "dual", kind))
    run, found = tmp_path / "run", tmp_path / "index"
    data = ["--data", str(corpus)]
    assert (
        train.main(["--recipe", "base", *data, "--output", str(run), f"media={folder}", f"text={folder}", *SMALL]) == 0
    )
    assert len(json.loads((run / "record.json").read_text())["best"]["recalls"]) == 2
    assert (run / "best-st").exists() == (kind in ("clip", "metaclip_2", "siglip"))
    for checkpoint in (folder, str(run)):
        assert score.main(["--checkpoint", checkpoint, *data, "--global-weight", "1"]) == 0
        assert index.main(["--checkpoint", checkpoint, *data, "--output", str(found), "--overwrite"]) == 0
        capsys.readouterr()
        assert search.main(["--index", str(found), "rot " * 400, "blau", "-k", "3", "--json"]) == 0
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [len(line["hits"]) for line in lines] == [3, 3]


@pytest.mark.parametrize("kind", MODELS)
def test_vectors_are_those_of_transformers(tmp_path, kind):
    folder = write_dual(tmp_path, kind)
    model, processor = load_baseline(str(folder))
    own, read = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    see = AutoImageProcessor.from_pretrained(folder)
    pictures, texts = [picture(0), picture(1, (90, 33)), picture(2, (32, 32))], ["red", "dunkel hell rot", "blau"]
    with torch.no_grad():
        media_BE, _ = model.encode_media(processor.media([[each] for each in pictures]), processor.descriptions([[]]))
        text_BE = model.encode_text(processor.texts(texts))
        for row, (image, text) in enumerate(zip(pictures, texts, strict=True)):
            padding = {"padding": "max_length", "max_length": 64} if kind.startswith("siglip") else {}
            ids = read([text], return_tensors="pt", **padding)["input_ids"]
            for vector, output in (
                (media_BE[row], own.get_image_features(**see(images=[image], return_tensors="pt"))),
                (text_BE[row], own.get_text_features(input_ids=ids)),
            ):
                expected = output if isinstance(output, torch.Tensor) else output.pooler_output
                np.testing.assert_allclose(vector, torch.nn.functional.normalize(expected[0], dim=0), atol=1e-5)

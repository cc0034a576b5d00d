"""Without descriptions a model ranks alike in score.py, in MTEB, in Sentence Transformers and in an index."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from datasets import Dataset

from pipeline.errors import EnvironmentTrouble, UsageError
from stages import index, score, search
from stages.data.batches import EvaluationData
from tests.stages.corpora import row, write_rows, write_training_corpus
from tests.stages.duals import adapted
from tests.stages.indexed import write_model

pytestmark = pytest.mark.torture  # the package takes seconds to load


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_training_corpus(tmp_path_factory.mktemp("mteb") / "corpus", 30)


def local_task(corpus):
    """A task of MTEB: the German texts of split val, and its pictures."""
    from mteb.mocks.mock_tasks import MockAny2AnyRetrievalT2ITask

    data = EvaluationData([corpus], "val")
    (texts, items), numbers = data.texts["de"], data.item_ids.tolist()
    pictures = [frames[0].copy() for frames in data.items(range(len(numbers)))[0]]  # of no format: stored as they are

    class Local(MockAny2AnyRetrievalT2ITask):
        metadata = MockAny2AnyRetrievalT2ITask.metadata.model_copy(update={"name": "Local", "eval_langs": ["deu-Latn"]})

        def load_data(self, **_):
            queries = Dataset.from_dict({"id": [f"q{n}" for n in range(len(texts))], "text": list(texts)})
            gallery = Dataset.from_dict({"id": list(map(str, numbers)), "image": pictures})
            relevant = {f"q{n}": {str(item): 1} for n, item in enumerate(items)}
            split = {"queries": queries, "corpus": gallery, "relevant_docs": relevant, "top_ranked": None}
            self.dataset, self.data_loaded = {"default": {"test": split}}, True

    return Local


@pytest.mark.parametrize("slots", ["views", "none", "stock"])
def test_it_ranks_alike_everywhere(tmp_path, corpus, slots, monkeypatch, capsys):
    from mteb import evaluate
    from mteb.get_tasks import _TASKS_REGISTRY
    from mteb.models import SentenceTransformerEncoderWrapper
    from sentence_transformers import SentenceTransformer

    from model.encoders.sentence_export import export_towers

    task, data = local_task(corpus), EvaluationData([corpus], "val")
    monkeypatch.setitem(_TASKS_REGISTRY, "Local", task)
    model = tower = str(tmp_path / "model")
    if slots == "stock":  # of Sentence Transformers' own modules
        tower = f"{model}-st"
        parts = adapted(tmp_path, "siglip")
        export_towers(*parts, Path(tower))
        for part in parts:
            part.save_pretrained(model)
    else:
        write_model(Path(model), slots=slots, read_start=0.5)
    report, ranks = tmp_path / "scores.json", tmp_path / "ranks.parquet"
    given = [
        "--checkpoint",
        model,
        "--data",
        str(corpus),
        "--languages",
        "de",
        "--slot-views",
        "none",
        "--mteb",
        "Local",
    ]
    assert score.main([*given, "--output", str(report), "--per-query", str(ranks)]) == 0
    assert "Local default test: " in capsys.readouterr().out
    rank_M = np.array([row["rank"] for row in pq.read_table(ranks).to_pylist() if row["direction"] == "text_to_media"])
    wrapped = SentenceTransformerEncoderWrapper(SentenceTransformer(tower, trust_remote_code=slots != "stock"))
    wrapped.mteb_model_meta.modalities = ["text", "image"]
    by_others = evaluate(wrapped, task(), cache=None, co2_tracker=False).task_results[0].scores
    for [scores] in (json.loads(report.read_text())["mteb"][0]["scores"]["test"], by_others["test"]):
        for cutoff in (1, 3, 5):
            assert scores[f"hit_rate_at_{cutoff}"] == pytest.approx((rank_M <= cutoff).mean(), abs=1e-5)
        assert scores["mrr_at_10"] == pytest.approx((1 / rank_M).mean(), abs=1e-5)
    rows = [row(int(name[5:10]), "val") | {"descriptions": []} for name in data.item_names]
    bare = write_rows(tmp_path / "bare", rows)
    assert index.main(["--checkpoint", model, "--data", str(bare), "--output", str(tmp_path / "index")]) == 0
    texts, items = data.texts["de"]
    capsys.readouterr()
    assert search.main(["--index", str(tmp_path / "index"), *texts, "-k", "9", "--json"]) == 0
    names = dict(zip(data.item_ids.tolist(), data.item_names, strict=True))
    for line, item, rank in zip(capsys.readouterr().out.splitlines(), items.tolist(), rank_M, strict=True):
        assert [hit["item_id"] for hit in json.loads(line)["hits"]].index(names[item]) == rank - 1


def test_what_cannot_be_scored_is_named(monkeypatch):
    for package in ("datasets.config", "huggingface_hub.constants"):
        monkeypatch.setattr(f"{package}.HF_HUB_OFFLINE", True)
    with pytest.raises(UsageError, match="Did you mean: 'XM3600T2IRetrieval'"):
        score.main(["--checkpoint", "embedded", "--mteb", "XM3600T2IRetrieva"])
    with pytest.raises(EnvironmentTrouble, match="mteb/xm3600"):
        score.main(["--checkpoint", "embedded", "--mteb", "XM3600T2IRetrieval", "--languages", "de"])
    with pytest.raises(UsageError, match="--data CORPUS, --mteb TASK or both"):
        score.main(["--checkpoint", "embedded"])

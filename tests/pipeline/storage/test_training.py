"""Training from an object store: what a corpus on a disk gives."""

import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from pipeline.storage.files import location
from stages.data.batches import TrainingData
from tests.conftest import ROOT, clean_environment
from tests.end_to_end.test_train import arguments
from tests.model.towers import processor
from tests.stages.corpora import write_training_corpus


def upload(folder, corpus):
    for path in (path for path in folder.rglob("*") if path.is_file()):
        with (corpus / path.relative_to(folder)).open("wb") as stream, path.open("rb") as source:
            shutil.copyfileobj(source, stream)
    return corpus


def test_batches_are_those_of_a_disk(object_store, tmp_path):
    corpora = [write_training_corpus(tmp_path / "corpus", 12, shards=3)]
    corpora.append(upload(corpora[0], location(f"s3://corpora/{tmp_path.name}/corpus")))
    ours, theirs = (TrainingData([corpus]).batch(range(8), processor(), seed=1, epoch=0) for corpus in corpora)
    for one, other in zip([*ours[0], *ours[1], *ours[3], ours[4]], [*theirs[0], *theirs[1], *theirs[3], theirs[4]]):  # noqa: B905
        torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.torture
def test_runs_are_those_of_a_disk(object_store, tmp_path):
    """With one process and with two, which start with an empty cache of their own."""
    disk = write_training_corpus(tmp_path / "corpus", 20, shards=5)
    store = upload(disk, location(f"s3://corpora/{tmp_path.name}/corpus"))
    for count in (1, 2):
        weights = []
        for corpus in (disk, store):
            run = tmp_path / f"run-{count}-{corpus.parts[0].strip('/:')}"
            launch = ["-m", "accelerate.commands.launch", "--cpu", "--num_processes", str(count)] if count > 1 else []
            environment = object_store.environment | {"OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(run) + "-cache"}
            done = subprocess.run(
                [sys.executable, *launch, "stages/train.py", *arguments(corpus, run, "steps=9")],
                env=clean_environment(PYTHONPATH=str(ROOT), **environment),
                cwd=ROOT, capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            weights.append(load_file(run / "best" / "model.safetensors"))
        assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())

"""A checkpoint is converted once; what CTranslate2 would translate otherwise is refused."""

import concurrent.futures
import json
import multiprocessing
import shutil

import pytest
from transformers import MarianMTModel

from pipeline.errors import EnvironmentTrouble
from pipeline.translation.conversion import Unservable, converted, unservable


def copied(folder, into):
    return shutil.copytree(folder, into / "model")


def test_a_checkpoint_is_converted_once(marian, tmp_path, monkeypatch):
    kept = converted(marian, tmp_path, "int8")
    assert {"model.bin", "shared_vocabulary.json", "source.spm", "target.spm", "checkpoint.json"} <= {
        path.name for path in kept.iterdir()
    }
    assert converted(marian, tmp_path, "float32") != kept
    monkeypatch.setattr("pipeline.translation.conversion._convert", None)
    assert converted(marian, tmp_path, "int8") == kept
    assert [path for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_another_model_in_the_same_folder_is_converted_anew(marian, tmp_path):
    folder = copied(marian, tmp_path)
    kept = converted(folder, tmp_path, "int8")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "dropout": 0.3}))
    assert converted(folder, tmp_path, "int8") != kept


def test_two_processes_at_once_leave_one_whole_model(marian, tmp_path):
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
        kept = set(pool.map(converted, [marian] * 2, [tmp_path] * 2, ["int8"] * 2))
    assert list(tmp_path.iterdir()) == list(kept)
    assert (kept.pop() / "model.bin").stat().st_size > 10_000


def test_an_embedding_of_pad_that_was_moved_is_refused(marian, tmp_path):
    folder = copied(marian, tmp_path)
    model = MarianMTModel.from_pretrained(folder)
    model.get_input_embeddings().weight.data[model.config.pad_token_id] += 0.1
    model.save_pretrained(folder)
    with pytest.raises(Unservable, match=r"the embedding of <pad>.*--translator transformers"):
        converted(folder, tmp_path / "kept", "int8")
    assert list((tmp_path / "kept").iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "model.safetensors").write_bytes(b"\x00" * 100), "cannot be converted"),
        (lambda folder: (folder / "model.safetensors").unlink(), "cannot be converted"),
        (lambda folder: (folder / "vocab.json").write_text("{"), "cannot be converted"),
        (lambda folder: (folder / "vocab.json").unlink(), "cannot be converted"),
    ],
)
def test_checkpoints_that_cannot_be_read(marian, tmp_path, change, message):
    folder = copied(marian, tmp_path)
    change(folder)
    with pytest.raises(Unservable, match=message):
        converted(folder, tmp_path / "kept", "int8")


def test_what_is_not_served_is_told_from_its_files(marian, tmp_path):
    assert unservable(marian) == ""
    folder = copied(marian, tmp_path)
    (folder / "target.spm").unlink()
    assert unservable(folder) == "it has no target.spm"
    (folder / "config.json").write_text('{"model_type": "mbart"}')
    assert "of type 'mbart'" in unservable(folder)
    (folder / "config.json").write_text('{"model_type": "marian", "share_encoder_decoder_embeddings": false}')
    shutil.copy(folder / "source.spm", folder / "target.spm")
    assert "a vocabulary each" in unservable(folder)


def test_a_cache_that_cannot_be_written_is_the_environment_s(marian, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentTrouble, match=r"cannot be kept in .*file.*free space there, or .*XDG_CACHE_HOME"):
        converted(marian, tmp_path / "file" / "cache", "int8")

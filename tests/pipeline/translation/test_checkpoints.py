"""Model folders: what their files say, and their conversion."""

import concurrent.futures
import json
import multiprocessing
import shutil

import pytest
from transformers import MarianMTModel

from pipeline.errors import EnvironmentTrouble, UsageError
from pipeline.translation import checkpoints
from pipeline.translation.checkpoints import convert_model
from tests.worked_examples import each_example


@each_example("the_licence_is_in_the_front_matter", "readme, license_name")
def test_the_licence_is_in_the_front_matter(tmp_path, readme, license_name):
    assert checkpoints.license_of(tmp_path) == ""
    (tmp_path / "README.md").write_text(readme)
    assert checkpoints.license_of(tmp_path) == license_name


@pytest.mark.parametrize("name", ["CC BY-NC-SA 4.0", "cc_by_nc4", "NC", "Noncommercial", "non_commercial"])
def test_noncommercial_licences_are_recognized(name):
    assert checkpoints.noncommercial(name)
    assert not any(map(checkpoints.noncommercial, ["ACME Inc.", "cc-by-4.0-ncx", "apache-2.0", "", "sync-1.0"]))


def copy_model(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "model")


def test_a_checkpoint_is_converted_once_and_again_where_it_changed(marian, tmp_path, monkeypatch):
    folder, cache = copy_model(marian, tmp_path), tmp_path / "cache"
    converted = convert_model(folder, cache, "int8")
    assert {"model.bin", "shared_vocabulary.json", "source.spm", "target.spm", "checkpoint.json"} <= {
        path.name for path in converted.iterdir()
    }
    change_config(dropout=0.3)(folder)
    changed = convert_model(folder, cache, "int8")
    assert len({converted, changed, convert_model(folder, cache, "float32")}) == 3
    monkeypatch.setattr(checkpoints, "_convert", None)
    assert convert_model(folder, cache, "int8") == changed
    assert [path for path in cache.iterdir() if path.name.startswith(".")] == []


@pytest.mark.torture
def test_two_processes_at_once_leave_one_whole_model(marian, tmp_path):
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
        folders = set(pool.map(convert_model, [marian] * 2, [tmp_path] * 2, ["int8"] * 2))
    assert list(tmp_path.iterdir()) == list(folders)
    assert (folders.pop() / "model.bin").stat().st_size > 10_000


def change_padding(folder):
    model = MarianMTModel.from_pretrained(folder)
    model.get_input_embeddings().weight.data[model.config.pad_token_id] += 0.1
    model.save_pretrained(folder)


def change_config(**values):
    def change(folder):
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (change_padding, "<pad>.*--translator llm"),
        (change_config(model_type="mbart"), "type 'mbart'"),
        (change_config(share_encoder_decoder_embeddings=False), "separate vocabularies"),
        (lambda folder: (folder / "target.spm").unlink(), "cannot be converted"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"\x00" * 100), "cannot be converted"),
        (lambda folder: (folder / "model.safetensors").unlink(), "cannot be converted"),
    ],
)
def test_checkpoints_that_cannot_be_converted(marian, tmp_path, change, message):
    folder = copy_model(marian, tmp_path)
    change(folder)
    with pytest.raises(UsageError, match=f"--mt-model: .*{message}"):
        convert_model(folder, tmp_path / "cache", "int8")
    assert not any((tmp_path / "cache").glob("*"))


def test_a_cache_that_cannot_be_written_is_a_problem_of_the_environment(marian, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentTrouble, match=r"cannot be written to .*file.*XDG_CACHE_HOME"):
        convert_model(marian, tmp_path / "file" / "cache", "int8")

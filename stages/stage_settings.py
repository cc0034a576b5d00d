"""Stages as the options ask for them: settings resolved, defaults taken from the corpus where it was begun already."""

import argparse
import os
from collections.abc import Callable
from pathlib import Path

from pipeline.captioning import choose
from pipeline.captioning.captioners import Sampling
from pipeline.captioning.prompts import parse_views
from pipeline.corpus import table as corpora
from pipeline.corpus.counting import values
from pipeline.errors import UsageError
from pipeline.media.images import Limits
from pipeline.options import read_options
from pipeline.packing.filters import read_filters
from pipeline.quality.similarity import resolve_encoders
from pipeline.translation.choose import TranslatorOptions, choose_translators
from pipeline.translation.tags import check_language
from stages.captions import Captions
from stages.ingest import Ingest
from stages.options import INGEST_DEFAULTS
from stages.pack import Pack
from stages.translate import HUMAN, Translate

COLUMNS = {"captions": ("language", "origin"), "descriptions": ("language",)}
Say = Callable[[str], None]


def ingest_stage(options: argparse.Namespace, corpus: Path) -> Ingest:
    """Stage ingest by the options given; those not given are as the corpus was begun, else the defaults."""
    stored = corpora.read_json(corpora.state_folder(corpus) / "ingest" / "settings.json")
    if stored is None and corpora.complete(corpus, "items"):
        stored = corpora.Table(corpus, "items").manifest["settings"]
    strict = options.stage == "ingest" or options.overwrite
    given = {name: getattr(options, name) for name in INGEST_DEFAULTS if getattr(options, name) is not None}
    values = {**INGEST_DEFAULTS, **given}
    settings = {
        "inputs": tuple(_normal(text) for text in values["input"]),
        "source": values["source"],
        "split": values["split"],
        "caption_language": values["caption_language"],
        "license": values["license"],
        "limit": values["limit"],
        "shard_size": values["shard_size"],
        "max_source_pixels": int(values["max_source_megapixels"] * 1_000_000),
        "subset": values["subset"],
        "allow_missing_media": values["allow_missing_media"],
    }
    option_of = {"inputs": "input", "max_source_pixels": "max_source_megapixels"}
    if stored is not None and not (strict and given):
        for name in settings:
            if option_of.get(name, name) not in given:
                settings[name] = tuple(stored[name]) if name == "inputs" else stored.get(name, settings[name])
    return Ingest(**settings)


def _normal(text: str) -> str:
    """An input by one name wherever the command is typed: local paths are made absolute."""
    return text if "://" in text else os.path.abspath(Path(text).expanduser())  # noqa: PTH100 - follows no link


def captions_stage(options: argparse.Namespace, corpus: Path, say: Say) -> Captions:
    views = parse_views(options.views)
    captioner = choose.choose_captioner(options.captioner, read_options(choose.ServerOptions, options), views, say)
    limits = Limits(max_source_pixels=ingest_stage(options, corpus).max_source_pixels)
    return Captions(captioner, views, Sampling(options.max_pixels, options.frames, limits))


def translate_stage(options: argparse.Namespace, corpus: Path, say: Say) -> Translate:
    if not options.languages:
        raise UsageError("--stage translate: got no --languages, wanted target languages, for example de,fr,cs")
    source = check_language(options.source_language, "--source-language")
    targets = sorted({check_language(tag, "--languages") for tag in _listed(options.languages)})
    if same := [target for target in targets if target.split("-")[0] == source.split("-")[0]]:
        raise UsageError(f"--languages: got {same[0]}, which is the language translated from: leave it out")
    text = _texts(options, corpus)
    if options.translator == "given" and text != ("captions",):
        raise UsageError("--translator given takes the translations that came with the captions: leave --text out")
    translator_options = read_options(TranslatorOptions, options)
    servers = read_options(choose.ServerOptions, options)
    translators, back = choose_translators(translator_options, servers, source, targets, say)
    encoders = resolve_encoders(options.quality_encoder, source, targets)
    for target in (target for target in targets if not encoders[target] and options.quality_encoder != "none"):
        say(f"note: no sentence encoder here knows {target}: its pairs get no score of meaning (--quality-encoder)")
    stage = Translate(text, source, translators, encoders, back, _texts_per_item(corpus, text))
    if has_text(corpus, stage) is False:
        raise no_text(options, corpus)
    return stage


def _listed(text: str) -> list[str]:
    return [part for part in (part.strip() for part in text.split(",")) if part]


def _texts(options: argparse.Namespace, corpus: Path) -> tuple[str, ...]:
    named = _listed(options.text)
    wrong = [name for name in named if name not in ("captions", "descriptions")]
    if wrong or not named:
        raise UsageError(f"--text: got {options.text!r}, wanted captions, descriptions or captions,descriptions")
    if "descriptions" in named and not corpora.complete(corpus, "descriptions"):
        raise UsageError(
            f"--text descriptions: {options.output} has no whole table of descriptions: run --stage captions first"
        )
    return tuple(name for name in ("captions", "descriptions") if name in named)


def _texts_per_item(corpus: Path, text: tuple[str, ...]) -> float:
    """How many texts an item has; many where that is not known yet, lest the failure budget is judged too early."""
    if not all(corpora.complete(corpus, table) for table in ("items", *text)):
        return 10.0
    rows = sum(corpora.Table(corpus, table).num_rows for table in text)
    return rows / max(1, corpora.Table(corpus, "items").num_rows)


def has_text(corpus: Path, stage: Translate) -> bool | None:
    """Whether the corpus has a text in the source language; None where its tables are not whole yet."""
    if not all(corpora.complete(corpus, table) for table in stage.text):
        return None
    languages = [
        language
        for table in stage.text
        for language, *origin in values(corpora.Table(corpus, table), *COLUMNS[table])
        if origin in ([], [HUMAN])
    ]
    return any(map(stage.translates, languages))


def no_text(options: argparse.Namespace, corpus: Path) -> UsageError:
    other = "give --text descriptions" if "descriptions" not in options.text else "give --text captions"
    if other.endswith("descriptions") and not corpora.complete(corpus, "descriptions"):
        other = "run --stage captions, then give --text descriptions"
    return UsageError(
        f"{options.output} has no {options.text} in {options.source_language} (--source-language), nothing to "
        f"translate: {other}, or give --input with captions to --stage ingest"
    )


def pack_stage(options: argparse.Namespace, corpus: Path) -> Pack:
    given = [os.path.abspath(path) for path in options.corpus or []]  # noqa: PTH100 - follows no link
    return Pack(
        corpora=tuple(given or [str(corpus)]),
        media=options.media,
        image_size=options.image_size,
        frames=options.frames,
        feature_type=options.feature_type,
        filters=read_filters(options.filters),
        output=str(corpus),
    )

"""The dataset card: CORPUS/README.md, with contact-sheet.png and quality.png next to it.

    complete tables → numbers, one pass over each table → front matter and card.md.jinja → README.md

A card is made to be published: nothing in it depends on the clock, and no path of this machine is in it.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pipeline.card.front_matter import front_matter, main_items, main_table
from pipeline.card.markdown import (
    Markdown,
    count_table,
    grid,
    legend,
    matrix,
    nested,
    pairs_grid,
    plural,
    public,
    ranking,
    show,
)
from pipeline.card.numbers import (
    Numbers,
    count_tables,
    histograms,
    split_sizes,
    spreads,
    sum_rows,
    totals,
    translation_columns,
)
from pipeline.card.pictures import MAX_TILES, write_contact_sheet, write_quality_chart
from pipeline.card.samples import Sample, read_samples
from pipeline.corpus.counting import Counts
from pipeline.corpus.schema import SCHEMAS
from pipeline.corpus.table import Table, atomic_writer, complete
from pipeline.hashing import canonical_json
from pipeline.packing.rows import REFUSAL
from pipeline.quality.rules import RULES
from pipeline.translation.checkpoints import noncommercial

CARD, SHEET, QUALITY, TEMPLATE = "README.md", "contact-sheet.png", "quality.png", "card.md.jinja"
TEMPLATE_FUNCTIONS = [grid, count_table, ranking, matrix, nested, pairs_grid, legend, plural]
TEMPLATE_FUNCTIONS += [spreads, totals, sum_rows, split_sizes, translation_columns]
SAMPLES, FAILURE_EXAMPLES = 5, 3
EMBEDDED, NOT_AN_MLLM = "embedded:", ", an image classifier and not a multimodal LLM"
# Settings that the card shows where it describes their effect, and hashes that no reader needs.
SHOWN_ELSEWHERE = {"views", "translators", "back", "encoders", "thresholds", "filters", "contents"}
LENGTHS = "Smallest / median / largest; words are what spaces separate (Chinese, Japanese, Thai: see the characters)."
DESCRIPTION_FLAGS = {
    "boilerplate": "an opening or closing phrase of the model was removed",
    "cut": "the answer reached the token limit and was trimmed at its last full sentence",
    "fragment": "it ended before its first full sentence and was kept as it came",
    "loop": "it repeated the same words and was cut before the second round",
    "markdown": "list marks, headings or emphasis were removed",
    "refusal": "the model declined or spoke of itself; kept as it came",
    "unsure": "the classifier was unsure, and the text says so",
}
PAIR_FLAGS = {name: rule.meaning for name, rule in RULES.items()} | {
    REFUSAL: "the description that was translated was declined by its model",
    "preamble_removed": "a note, which drops nothing: an opening such as “Here is the translation:” was removed",
    "quotes_removed": "a note, which drops nothing: quotation marks around the whole were removed",
    "echo_removed": "a note, which drops nothing: the source, repeated in its translation, was removed",
}


def write_card(corpus: Path) -> None:
    """Write README.md and its pictures from the corpus's complete tables; the same corpus gives the same bytes.

    Raises:
        UsageError: Neither `items` nor `training` is complete.
    """
    packed_only = complete(corpus, "training") and not (corpus / "items").is_dir()
    tables = {
        name: Table(corpus, name) for name in SCHEMAS if complete(corpus, name) or (name == "items" and not packed_only)
    }
    counts = count_tables(tables)
    values = card_values(corpus.absolute().name, tables, counts)
    if not packed_only:
        subtitle = f"{values['summary']} · {values['described']}"
        write_contact_sheet(corpus / SHEET, values["name"], subtitle, read_samples(tables, MAX_TILES))
    if "translations" in tables and tables["translations"].num_rows:
        write_quality_chart(corpus / QUALITY, histograms(counts["translations"]["qualities"]))
    with atomic_writer(corpus / CARD) as stream:
        stream.write(render(values).encode("utf-8"))


def render(values: Mapping[str, Any]) -> str:
    """Fill in the template. Every value is escaped unless it is `Markdown`."""
    import jinja2

    environment = jinja2.Environment(  # noqa: S701 - the output is Markdown, which `show` escapes
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        finalize=show,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update({function.__name__: function for function in TEMPLATE_FUNCTIONS})
    return re.sub(r"\n{3,}", "\n\n", environment.get_template(TEMPLATE).render(values)) + "\n"


def card_values(name: str, tables: Mapping[str, Table], numbers: Numbers) -> dict[str, Any]:
    """What the template shows: the tables with their manifests, their numbers, and what needs more than a template.

    Args:
        name: Title of the card.
        tables: The corpus's complete tables.
        numbers: As `count_tables` gives them.
    """
    packed_only = "items" not in tables
    settings = {table: tables[table].manifest["settings"] for table in tables}
    packed = tables["training"].manifest if "training" in tables else {}
    sources = packed.get("sources", [])
    captioner = public(settings.get("descriptions", {}).get("captioner", ""))
    is_embedded = captioner.startswith(EMBEDDED)
    embedded = [source["name"] for source in sources if source["captioner"].startswith(EMBEDDED)]
    packed_from = [source["name"] for source in sources] or settings.get("training", {}).get("corpora", [])
    described = numbers.get("descriptions", {})
    views = settings.get("descriptions", {}).get("views", {})
    translation = settings.get("translations", {})
    samples = enumerate(read_samples(tables, SAMPLES))
    return {
        "name": name,
        "tables": tables,
        "numbers": numbers,
        "front_matter": Markdown(front_matter(name, tables, numbers)),
        "summary": _summary(tables, numbers),
        "described": f"described by {captioner}{NOT_AN_MLLM * is_embedded}" if captioner else "not described yet",
        "embedded": is_embedded,
        "embedded_sources": ", ".join(embedded),
        "packed_only": packed_only,
        "packed_from": ", ".join(public(str(corpus).rstrip("/")) for corpus in packed_from) or "another corpus",
        "samples": [_sample_row(number, sample) for number, sample in samples],
        "table_sizes": [[table.name, table.num_rows, table.num_shards] for table in tables.values()],
        "lengths": Markdown(LENGTHS),
        "description_flags": DESCRIPTION_FLAGS,
        "captioners": Counts({(public(n), r): count for (n, r), count in described.get("captioners", {}).items()}),
        "prompts": [[view, views[view]["prompt"]] for view in sorted(views)],
        "source_tables": " and ".join(sorted(n for (n,) in numbers.get("translations", {}).get("source_tables", ()))),
        "rules": PAIR_FLAGS,
        "thresholds": translation.get("thresholds", {}),
        "translators": _translators(translation, numbers.get("translations", {}).get("translators", {})),
        # A corpus that was packed from its own tables has described itself above.
        "sources": [] if packed.get("settings", {}).get("corpora") == ["."] and not packed_only else _sources(sources),
        "licenses": numbers[main_items(tables).name]["licenses"],
        "notices": _notices([translation.get("translators", {}), *(source["translators"] for source in sources)]),
        "failures": _failures(tables.values()),
        "provenance": _provenance(tables.values()),
        "main_table": main_table(tables),
        "training_apart": packed and "items" not in packed["parents"],
    }


def _summary(tables: Mapping[str, Table], numbers: Numbers) -> str:
    """Such as `9 images · 45 descriptions (en) · 45 translations (pt)`."""
    parts = [plural(count, kind) for (kind,), count in sorted(numbers[main_items(tables).name]["media"].items())]
    texts = {name: numbers.get(name, {}).get("languages", {}) for name in ("captions", "descriptions", "translations")}
    if "items" not in tables:
        texts["captions"] = Counts()
        for (_, language, _), count in numbers["training"]["captions"].items():
            texts["captions"][language,] += count
    for name, counts in texts.items():
        if counts:
            languages = ", ".join(sorted({key[0] for key in counts}))
            parts.append(f"{plural(counts.total(), name.removesuffix('s'))} ({languages})")
    return " · ".join(parts or ["no items"])


def _sample_row(number: int, sample: Sample) -> list[str]:
    description = sample.descriptions[number % len(sample.descriptions)] if sample.descriptions else {}
    texts = [description.get("view", ""), description.get("text", ""), sample.first_captions]
    return [sample.item["item_id"], sample.item["media_type"], sample.size, *texts]


def _translators(settings: Mapping[str, Any], counts: Mapping[Any, int]) -> list[list[Any]]:
    rows: list[list[Any]] = []
    for (language, translator, revision, decoding), count in sorted(counts.items()):
        license = settings["translators"].get(language, {}).get("license") or "not stated"
        encoder = public(settings.get("encoders", {}).get(language) or "not measured")
        back = public(settings.get("back", {}).get(language, {}).get("name", ""))
        rows.append([language, public(translator), public(revision), license, decoding, encoder, back, count])
    return rows


def _sources(sources: Iterable[Mapping[str, Any]]) -> list[list[str]]:
    """Of every packed corpus: its items by licence, its captioner and its translators."""
    rows = []
    for source in sources:
        licenses = [f"{text or 'not stated'} ({count:,})" for text, count in source["licenses"].items()]
        translators = [
            f"{language}: {public(translator['name'])} {public(translator['revision'])}".rstrip()
            + f" ({translator['license'] or 'licence not stated'})"
            for language, translator in sorted(source["translators"].items())
        ]
        rows.append([source["name"], ", ".join(licenses), public(source["captioner"]), ", ".join(translators)])
    return rows


def _notices(translators_of: Iterable[Mapping[str, Mapping[str, Any]]]) -> list[dict[str, str]]:
    """The translators whose licence forbids commercial use, from settings by target language of one or more corpora."""
    languages: dict[tuple[str, str], set[str]] = {}
    for translators in translators_of:
        for language, translator in translators.items():
            if noncommercial(translator.get("license", "")):
                languages.setdefault((translator["name"], translator["license"]), set()).add(language)
    return [
        {"languages": ", ".join(sorted(targets)), "model": public(name), "license": license}
        for (name, license), targets in sorted(languages.items())
    ]


def _failures(tables: Iterable[Table]) -> list[list[Any]]:
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for failure in (failure for table in tables for failure in table.failures()):
        groups.setdefault((failure["stage"], failure["error"]), []).append(failure)
    rows: list[list[Any]] = []
    for reason, failures in sorted(groups.items()):
        examples = [f"{failure['id']}: {public(failure['message'])}" for failure in failures[:FAILURE_EXAMPLES]]
        rows.append([*reason, len(failures), " — ".join(examples)])
    return rows


def _provenance(tables: Iterable[Table]) -> list[dict[str, Any]]:
    """Of every stage: its tables, tools, fingerprint and settings."""
    stages: dict[str, dict[str, Any]] = {}
    for table in tables:
        manifest = table.manifest
        settings = [
            [name, _setting(value)] for name, value in manifest["settings"].items() if name not in SHOWN_ELSEWHERE
        ]
        tools = ", ".join(f"{tool} {version}" for tool, version in manifest["tools"].items())
        stage = {"tables": [], "manifest": manifest, "tools": tools, "settings": settings}
        stages.setdefault(manifest["stage"], stage)["tables"].append(table.name)
    return list(stages.values())


def _setting(value: Any) -> Any:
    if isinstance(value, dict):
        return public(canonical_json(value))
    if isinstance(value, list):
        return ", ".join(public(str(part).rstrip("/")) for part in value) or "none"
    return public(str(value).rstrip("/")) or "none" if isinstance(value, str) else value

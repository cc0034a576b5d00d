"""The dataset card: CORPUS/README.md, with contact-sheet.png next to it.

    complete tables → numbers, split sizes, sample items → front matter and card.md.jinja → README.md

A card is made to be published: nothing in it depends on the clock, and no path of this machine is in it. Its last line
names the state of the tables that it describes, so that a card left over by a killed run is written again.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pipeline.captioning.cleaning import DROPPED, FLAGS
from pipeline.card.markdown import cut, escape, plural, public, public_id, show
from pipeline.card.numbers import Numbers, by_language, count_tables, spreads, totals
from pipeline.card.samples import read_samples
from pipeline.card.sheet import MAX_TILES, write_contact_sheet
from pipeline.corpus.counting import Counts
from pipeline.corpus.schema import SCHEMAS
from pipeline.corpus.table import Table, complete, manifest_hash
from pipeline.hashing import canonical_json, fingerprint
from pipeline.packing.manifest import split_sizes
from pipeline.quality.rules import RULES
from pipeline.storage.files import write_file
from pipeline.translation.checkpoints import noncommercial

CARD, SHEET, TEMPLATE = "README.md", "contact-sheet.png", "card.md.jinja"
SAMPLES = 5
EMBEDDED = "embedded:"
TASKS = {"image": "image-to-text", "video": "video-text-to-text"}
# Licences of pictures and texts that have an id on the Hub.
HUB_LICENSES = r"cc-by(-sa|-nc|-nc-sa|-nc-nd)?-[34]\.0|cc-by-(2\.[05]|nc-2\.0|nc-sa-2\.0|nd-4\.0)|cc0-1\.0|pddl|mit"


def update_card(corpus: Path) -> None:
    """Write README.md and its contact sheet, unless they are of the present tables already.

    Raises:
        UsageError: Neither `items` nor `training` is complete.
    """
    path = corpus / CARD
    if not path.exists() or _made_from(corpus).encode() not in path.read_bytes():
        write_card(corpus)


def _made_from(corpus: Path) -> str:
    """The last line of a card of the corpus as it is now: its name and the hash of its manifests."""
    manifests = {name: manifest_hash(corpus, name) for name in SCHEMAS if complete(corpus, name)}
    return f"<!-- made from {fingerprint({'name': corpus.absolute().name, **manifests})} -->"


def write_card(corpus: Path) -> None:
    """Write README.md and its contact sheet from the corpus's complete tables; the same corpus gives the same bytes.

    Raises:
        UsageError: Neither `items` nor `training` is complete.
    """
    packed_only = complete(corpus, "training") and not (corpus / "items").is_dir()
    tables = {
        name: Table(corpus, name) for name in SCHEMAS if complete(corpus, name) or (name == "items" and not packed_only)
    }
    numbers = count_tables(tables)
    values = card_values(corpus.absolute().name, tables, numbers)
    if not packed_only:
        subtitle = f"{values['summary']} · {values['described']}"
        write_contact_sheet(corpus / SHEET, values["name"], subtitle, read_samples(tables, MAX_TILES))
    with write_file(corpus / CARD) as stream:
        stream.write(f"{render(values)}\n{_made_from(corpus)}\n".encode())


def render(values: Mapping[str, Any]) -> str:
    """Fill in the template. Every value is escaped unless it is `Markup`."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        finalize=show,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for function in (cut, escape, plural, public, public_id, setting, spreads, totals):
        environment.filters[function.__name__] = function
    return re.sub(r"\n{3,}", "\n\n", environment.get_template(TEMPLATE).render(values)) + "\n"


def card_values(
    name: str,
    tables: Mapping[str, Table],
    numbers: Numbers,
    data_files: Mapping[str, Any] | None = None,
    exported: str = "",
) -> dict[str, Any]:
    """What the template shows: the tables with their manifests, their numbers, and what needs more than a template.

    Args:
        name: Title of the card.
        tables: The corpus's complete tables.
        numbers: As `count_tables` gives them.
        data_files: Of an export: the files of each table that is not empty.
        exported: Where the export is: its folder, or its name on the Hub; "" for a corpus.
    """
    arrow_files = {name: f"{name}/*.arrow" for name in tables if tables[name].num_rows}
    settings = {table: tables[table].manifest["settings"] for table in tables}
    packed = tables["training"].manifest if "training" in tables else {}
    sources = packed.get("sources", [])
    captioner = public(settings.get("descriptions", {}).get("captioner", ""))
    is_embedded = captioner.startswith(EMBEDDED)
    notices = _notices([settings.get("translations", {}), *sources])
    not_an_mllm = ", an image classifier and not a multimodal LLM" if is_embedded else ""
    return {
        "name": name,
        "tables": tables,
        "numbers": numbers,
        "settings": settings,
        "front_matter": front_matter(name, tables, numbers, bool(notices), data_files or arrow_files),
        "exported": exported,
        "summary": _summary(tables, numbers),
        "described": f"described by {captioner}{not_an_mllm}" if captioner else "not described yet",
        "embedded": is_embedded,
        "embedded_sources": [source["name"] for source in sources if source["captioner"].startswith(EMBEDDED)],
        "packed_only": "items" not in tables,
        "packed_from": [source["name"] for source in sources] or settings.get("training", {}).get("corpora", []),
        "samples": read_samples(tables, SAMPLES),
        "languages": by_language(numbers.get("translations", {}).get("qualities", {})),
        "rules": {name: rule.meaning for name, rule in RULES.items()},
        "description_flags": FLAGS,
        "dropped_flags": sorted(DROPPED),
        "splits": split_sizes(tables["training"].shard_paths()) if packed else {},
        "sources": sources,
        "licenses": numbers[main_items(tables).name]["licenses"],
        "notices": notices,
        "failures": [failure for table in tables.values() for failure in table.failures()],
        "main_table": main_table(tables),
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


def _notices(corpora: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], set[str]]:
    """The languages of each (translator, licence) that forbids commercial use, by the `translators` of each corpus."""
    languages: dict[tuple[str, str], set[str]] = {}
    for corpus in corpora:
        for language, translator in corpus.get("translators", {}).items():
            if noncommercial(translator.get("license", "")):
                languages.setdefault((translator["name"], translator["license"]), set()).add(language)
    return languages


def setting(value: Any) -> Any:
    """A setting of a manifest as the card shows it, without the folders of paths."""
    if isinstance(value, dict):
        return public(canonical_json(value))
    if isinstance(value, list):
        return ", ".join(public(str(part).rstrip("/")) for part in value) or "none"
    return public(value.rstrip("/")) or "none" if isinstance(value, str) else value


def front_matter(
    name: str, tables: Mapping[str, Table], numbers: Numbers, is_restricted: bool, data_files: Mapping[str, Any]
) -> str:
    """The card's YAML. An empty table gets no config, as `datasets` cannot make a split of no rows.

    Args:
        name: Title of the card.
        tables: The corpus's complete tables.
        numbers: As `count_tables` gives them.
        is_restricted: Whether the licence of a translator forbids commercial use.
        data_files: The files of each table that is not empty.
    """
    from huggingface_hub import DatasetCardData

    main = main_items(tables)
    return DatasetCardData(
        language=_languages(numbers) or None,
        license=_license(tables, numbers, is_restricted),
        task_categories=[TASKS[media] for (media,) in sorted(numbers[main.name]["media"])],
        size_categories=[size_category(main.num_rows)],
        pretty_name=name,
        tags=_tags(tables, numbers),
        configs=[
            {"config_name": table, "data_files": files} | ({"default": True} if table == main_table(tables) else {})
            for table, files in data_files.items()
        ],
    ).to_yaml()


def main_items(tables: Mapping[str, Table]) -> Table:
    """The table that has a row for each item: `items`, or `training` where a corpus has only that."""
    return tables["items" if "items" in tables else "training"]


def main_table(tables: Mapping[str, Table]) -> str:
    """The table that a reader most likely wants: the last that is not empty."""
    filled = [name for name in ("training", "translations", "descriptions") if name in tables and tables[name].num_rows]
    return next(iter(filled), main_items(tables).name)


def _languages(numbers: Numbers) -> list[str]:
    """Primary subtags of all languages that texts are in."""
    tags = {
        key[0]
        for table in ("captions", "descriptions", "translations")
        for key in numbers.get(table, {}).get("languages", ())
    }
    tags |= {language for _, language, _ in numbers.get("training", {}).get("captions", ())}
    return sorted({tag.split("-")[0].lower() for tag in tags})


def _license(tables: Mapping[str, Table], numbers: Numbers, is_restricted: bool) -> str:
    """The licence of all items, or `other`, also where a translator's licence forbids what that of the items allows."""
    sources = tables["training"].manifest.get("sources", []) if "training" in tables else []
    stated = {text for (text,) in numbers[main_items(tables).name]["licenses"]}
    license = hub_license(stated.union(*(source["licenses"] for source in sources)))
    return "other" if is_restricted and not noncommercial(license) else license


def _tags(tables: Mapping[str, Table], numbers: Numbers) -> list[str]:
    described, translated = "descriptions" in tables, "translations" in tables
    if "training" in tables:
        packed = numbers["training"]
        origins = {origin for _, _, origin in packed["captions"]}
        described |= "mllm" in origins or packed["described"][True,] > 0
        translated |= "mt" in origins
    tags = {"caption-corpus": True, "synthetic": described or translated, "translation": translated}
    return [tag for tag, applies in tags.items() if applies]


def size_category(rows: int) -> str:
    """The Hub's category for a number of rows, for example `10K<n<100K`."""
    steps = ["1", "1K", "10K", "100K", "1M", "10M", "100M", "1B", "10B", "100B", "1T"]
    power = max(0, len(str(rows)) - 3)
    return f"{steps[power]}<n<{steps[power + 1]}" if power else "n<1K"


def hub_license(texts: Iterable[str]) -> str:
    """The Hub's id of the one licence that all items share; `other` where there are several or the Hub has none."""
    stated = sorted(texts)
    text = stated[0].lower() if len(stated) == 1 else ""
    if deed := re.search(r"creativecommons\.org/licenses/([a-z-]+)/(\d\.\d)", text):
        text = f"cc-{deed[1]}-{deed[2]}"
    text = {"cc0": "cc0-1.0"}.get(text, "-".join(text.split()))
    return text if re.fullmatch(HUB_LICENSES, text) else "other"

"""The YAML that opens a card: what the Hugging Face Hub reads of a corpus."""

import re
from collections.abc import Sequence

from huggingface_hub import DatasetCardData

from pipeline.card.training import caption_counts
from pipeline.corpus.counting import values
from pipeline.corpus.table import Table
from pipeline.packing.manifest import split_sizes
from pipeline.translation.checkpoints import noncommercial

TASKS = {"image": "image-to-text", "video": "video-text-to-text"}
RETRIEVAL = {"image": "image-text-retrieval", "video": "video-text-retrieval"}
# Licences of pictures and text that the Hugging Face Hub has an id for.
HUB_LICENSES = r"cc-by(-sa|-nc|-nc-sa|-nc-nd)?-[34]\.0|cc-by-(2\.[05]|nc-2\.0|nc-sa-2\.0|nd-4\.0)|cc0-1\.0|pddl|mit"


def front_matter(name: str, tables: dict[str, Table]) -> str:
    """The card's YAML. An empty table gets no config: `datasets` cannot make a split of no rows."""
    return DatasetCardData(
        language=_languages(tables) or None,
        license=_license(tables),
        task_categories=[TASKS[media] for (media,) in sorted(values(main_items(tables), "media_type"))],
        size_categories=[size_category(main_items(tables).num_rows)],
        pretty_name=name,
        tags=_tags(tables),
        configs=[
            {
                "config_name": table,
                "data_files": f"{table}/*.arrow",
                **({"default": True} if table == main_table(tables) else {}),
            }
            for table in tables
            if tables[table].num_rows
        ],
    ).to_yaml()


def main_items(tables: dict[str, Table]) -> Table:
    """The table that has a row an item: `items`, or `training` where the corpus was packed from others."""
    return tables["items" if "items" in tables else "training"]


def main_table(tables: dict[str, Table]) -> str:
    """The table that a reader most likely wants: what was made last of what is not empty."""
    filled = [name for name in ("training", "translations", "descriptions") if name in tables and tables[name].num_rows]
    return next(iter(filled), main_items(tables).name)


def _languages(tables: dict[str, Table]) -> list[str]:
    """Primary subtags of all languages that texts are in."""
    columns = {"captions": "language", "descriptions": "language", "translations": "target_language"}
    found = {tag for table, column in columns.items() if table in tables for (tag,) in values(tables[table], column)}
    if "training" in tables:
        found |= {language for _, language, _ in caption_counts(tables["training"])}
    return sorted({tag.split("-")[0].lower() for tag in found})


def _license(tables: dict[str, Table]) -> str:
    """That of the items; `other` where a model that translated forbids what it allows."""
    made_from = tables["training"].manifest.get("sources", []) if "training" in tables else []
    translators = [source["translators"] for source in made_from]
    if "translations" in tables:
        translators.append(tables["translations"].manifest["settings"].get("translators", {}))
    texts = {text for (text,) in values(main_items(tables), "license")}
    found = hub_license(sorted(texts.union(*(source["licenses"] for source in made_from))))
    forbidden = any(noncommercial(made.get("license", "")) for of in translators for made in of.values())
    return "other" if forbidden and not noncommercial(found) else found


def _tags(tables: dict[str, Table]) -> list[str]:
    described, translated, media = "descriptions" in tables, "translations" in tables, list[str]()
    if packed := tables.get("training"):
        origins = {origin for _, _, origin in caption_counts(packed)}
        described |= "mllm" in origins or any(
            size["descriptions"] for size in split_sizes(packed.shard_paths()).values()
        )
        translated |= "mt" in origins
        media = [RETRIEVAL[kind] for (kind,) in sorted(values(packed, "media_type"))]
    tags = ["caption-corpus", *(["synthetic"] if described or translated else [])]
    return [*tags, *(["translation"] if translated else []), *media]


def size_category(rows: int) -> str:
    """The Hub's category for a number of rows, for example `10K<n<100K`."""
    steps = ["1", "1K", "10K", "100K", "1M", "10M", "100M", "1B", "10B", "100B", "1T"]
    power = max(0, len(str(rows)) - 3)
    return f"{steps[power]}<n<{steps[power + 1]}" if power else "n<1K"


def hub_license(texts: Sequence[str]) -> str:
    """The Hub's id of the one licence that all items share, `other` where there are several or it is not known."""
    text = texts[0].lower() if len(texts) == 1 else ""
    if deed := re.search(r"creativecommons\.org/licenses/([a-z-]+)/(\d\.\d)", text):
        text = f"cc-{deed[1]}-{deed[2]}"
    text = {"cc0": "cc0-1.0"}.get(text, "-".join(text.split()))
    return text if re.fullmatch(HUB_LICENSES, text) else "other"

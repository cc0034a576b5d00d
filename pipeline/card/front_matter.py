"""The YAML at the top of a card: what the Hugging Face Hub reads about a corpus."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from pipeline.card.numbers import Numbers
from pipeline.corpus.table import Table
from pipeline.translation.checkpoints import noncommercial

TASKS = {"image": "image-to-text", "video": "video-text-to-text"}
# Licences of pictures and texts that have an id on the Hub.
HUB_LICENSES = r"cc-by(-sa|-nc|-nc-sa|-nc-nd)?-[34]\.0|cc-by-(2\.[05]|nc-2\.0|nc-sa-2\.0|nd-4\.0)|cc0-1\.0|pddl|mit"


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

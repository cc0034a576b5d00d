"""The model card: what a model is, how it was trained and how good it is, from the record of its run."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2


def card(record: Mapping[str, Any], stock: bool = False) -> str:
    """Write the README.md of a model.

    Args:
        record: `settings` by key, `corpora` (name, training), `tools`; after a validation also `validation` (step,
            split, items, sum_r, chance, global_weight, recalls by language and direction) and `label`, a warning to
            print with the scores, if there is one; `comparison` with other models (split, items, arms).
        stock: Whether the folder is a model of Sentence Transformers that does not need this package.
    """
    validation = record.get("validation")
    languages = sorted(validation["recalls"]) if validation else list(record["settings"].get("languages", ()))
    environment = jinja2.Environment(trim_blocks=True, keep_trailing_newline=True)  # noqa: S701 - Markdown, see _escape
    environment.filters |= {"json": json.dumps, "escape": _escape}
    template = environment.from_string(Path(__file__).with_suffix(".md.jinja").read_text("utf-8"))
    optional = {"validation": validation, "label": record.get("label"), "comparison": record.get("comparison")}
    return template.render({**record, **optional, "languages": list(map(str, languages)), "stock": stock})


def _escape(text: Any) -> str:
    """Text in which nothing is read as Markdown or HTML."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(str(text).split()))

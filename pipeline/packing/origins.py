"""Where packed texts and media come from, for the manifest: who may use them must be told with them."""

from pathlib import Path
from typing import Any

from pipeline.corpus.counting import values
from pipeline.corpus.table import Table, complete


def origin(corpus: Path) -> dict[str, Any]:
    """Of one packed corpus: its items by licence, who described them, who translated into which language."""
    licenses = {text: count for (text,), count in sorted(values(Table(corpus, "items"), "license").items())}
    told: dict[str, Any] = {"name": corpus.name, "licenses": licenses, "captioner": "", "translators": {}}
    if complete(corpus, "descriptions"):
        told["captioner"] = Table(corpus, "descriptions").manifest["settings"].get("captioner", "")
    if complete(corpus, "translations"):
        translators = Table(corpus, "translations").manifest["settings"].get("translators", {})
        told["translators"] = {
            language: {name: made.get(name, "") for name in ("name", "revision", "license")}
            for language, made in sorted(translators.items())
        }
    return told

"""croissant.json: an exported corpus as machines read it, in Croissant 1.0 with the terms for responsible AI."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

from pipeline.card.markdown import public

CROISSANT, STATEMENTS = "croissant.json", "croissant.yaml"
FILES = {"@type": "cr:FileSet", "encodingFormat": "application/x-parquet"}
HUB = "https://huggingface.co/datasets/"


def croissant(values: Mapping[str, Any], schemas: Mapping[str, pa.Schema], repo: str) -> dict[str, Any]:
    """The description of an export.

    Args:
        values: What the card shows, see `pipeline.card.card.card_values`.
        schemas: Columns of the Parquet files, by table.
        repo: Its repository on the Hub, or "".
    """
    described = yaml.safe_load((Path(__file__).parent / STATEMENTS).read_text("utf-8"))
    parent = {"containedIn": {"@id": "repo"}} if repo else {}
    numbers = values["numbers"]
    writers = {public(key[0]) for key in numbers.get("descriptions", {}).get("captioners", ())}
    translators = {public(key[1]) for key in numbers.get("translations", {}).get("translators", ())}
    described |= {
        "name": values["name"],
        "description": f"{values['summary']}; {values['described']}.",
        "url": HUB + repo if repo else ".",
        "license": sorted(text for (text,) in values["licenses"] if text) or "not stated",
        "rai:dataCollection": f"Media and captions were taken from {', '.join(_sources(values))}.",
        "rai:machineAnnotationTools": [
            *(f"{name} wrote descriptions" for name in sorted(writers)),
            *(f"{name} translated" for name in sorted(translators)),
        ],
        "distribution": [{**FILES, "@id": table, **parent, "includes": f"{table}/*.parquet"} for table in schemas],
        "recordSet": [
            {"@type": "cr:RecordSet", "@id": f"{table}-rows", "name": table, "field": _fields(table, schema)}
            for table, schema in schemas.items()
        ],
    }
    if repo:
        hub = {"contentUrl": HUB + repo, "encodingFormat": "git+https", "sha256": "main"}
        described["distribution"].insert(0, {"@type": "cr:FileObject", "@id": "repo", "name": "repo", **hub})
    return {name: value for name, value in described.items() if value != []}


def _sources(values: Mapping[str, Any]) -> list[str]:
    counts = values["numbers"].get("items", {}).get("sources", {})
    packed_from = values["packed_from"] if values["packed_only"] else ()
    return sorted({public(name) for name in [*(name for (name,) in counts), *packed_from] if name}) or ["files"]


def _fields(table: str, schema: pa.Schema) -> list[dict[str, Any]]:
    """Its columns, and as `split` what the name of each file begins with."""
    regex = {"regex": r"(?:.*/)?([\w.]+)-\d+-of-\d+\.parquet$"}
    source = {"fileSet": {"@id": table}, "extract": {"fileProperty": "fullpath"}, "transform": regex}
    split = {"@type": "cr:Field", "@id": f"{table}-rows/split", "dataType": "sc:Text", "source": source}
    texts = [field for field in schema if not pa.types.is_large_binary(field.type)]  # there is no type for arrays
    columns = [_field(f"{table}-rows/{field.name}", field.type, table, field.name, "") for field in texts]
    return columns if "split" in schema.names else [*columns, split]


def _field(name: str, kind: pa.DataType, table: str, column: str, path: str) -> dict[str, Any]:
    field: dict[str, Any] = {"@type": "cr:Field", "@id": name}
    if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        field["repeated"], kind = True, kind.value_type
    is_picture = pa.types.is_struct(kind) and kind.names == ["bytes", "path"]
    if pa.types.is_struct(kind) and not is_picture:
        parts = [(part.name, part.type) for part in kind.fields]
        return field | {
            "subField": [_field(f"{name}/{of}", type_, table, column, f"{path}.{of}") for of, type_ in parts]
        }
    source: dict[str, Any] = {"fileSet": {"@id": table}, "extract": {"column": column}}
    if path := path.lstrip(".") or ("bytes" if is_picture else ""):
        source["transform"] = {"jsonPath": path}
    return field | {"dataType": "sc:ImageObject" if is_picture else _data_type(kind), "source": source}


def _data_type(kind: pa.DataType) -> str:
    if pa.types.is_integer(kind):
        return "sc:Integer"
    return "sc:Float" if pa.types.is_floating(kind) else "sc:Text"

"""What a camera recorded in the header of a picture or video: when, where and with what it was taken."""

import contextlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import pyarrow as pa

from pipeline.corpus.schema import fields_of
from pipeline.errors import MediaError, PipelineError
from pipeline.media.images import exif
from pipeline.media.uri import open_media, stamp
from pipeline.media.video import header
from pipeline.optional import import_optional
from pipeline.storage.files import in_parallel


class FactsRow(TypedDict):
    """What was recorded of an item; None where it is not known."""

    taken: str | None  # 2024-07-31T18:05:00, by the clock of the camera
    camera: str | None
    place: str | None  # names of the nearest town, its district and its country, in English
    duration_s: float | None  # of a video


FACTS = pa.schema(fields_of(FactsRow))


def read_facts(items: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows of FACTS of items with `uri` and `media_type`; null what is not known, as of originals elsewhere."""
    rows = in_parallel(_facts, items)
    placed = [row for row in rows if row.get("place")]
    if placed:
        reverse_geocode = import_optional("reverse_geocode", "search", "the name of a place")
        for row, of in zip(placed, reverse_geocode.search([row["place"] for row in placed]), strict=True):
            row["place"] = ", ".join(filter(None, map(of.get, ("city", "county", "state", "country"))))
    return pa.Table.from_pylist(rows, FACTS)


def _facts(item: Mapping[str, Any]) -> dict[str, Any]:
    if not stamp(item["uri"]):  # not on this machine
        return {}
    try:
        with open_media(item["uri"]) as stream:
            return _of_video(*header(stream)) if item["media_type"] == "video" else _of_picture(*exif(stream))
    except (MediaError, PipelineError, OSError):
        return {}


def _of_picture(tags: Mapping[str, Any], gps: Mapping[str, Any]) -> dict[str, Any]:
    facts = _common(tags.get("DateTimeOriginal") or tags.get("DateTime"), tags.get("Make"), tags.get("Model"))
    with contextlib.suppress(KeyError, TypeError, ValueError, ZeroDivisionError):
        at = []
        for name, negative in (("Latitude", "S"), ("Longitude", "W")):
            degrees, minutes, seconds = map(float, gps[f"GPS{name}"])
            at.append((-1 if gps.get(f"GPS{name}Ref") == negative else 1) * (degrees + minutes / 60 + seconds / 3600))
        facts["place"] = _place(*at)
    return facts


def _of_video(tags: Mapping[str, str], duration_s: float | None) -> dict[str, Any]:
    tags = {name.rpartition(".")[2]: value for name, value in tags.items()}  # com.apple.quicktime.model
    facts = _common(tags.get("creationdate") or tags.get("creation_time"), tags.get("make"), tags.get("model"))
    if where := re.match(r"([+-]\d+(?:\.\d+)?)([+-]\d+(?:\.\d+)?)", tags.get("ISO6709", tags.get("location", ""))):
        facts["place"] = _place(float(where[1]), float(where[2]))
    return {**facts, "duration_s": duration_s}


def _place(latitude: float, longitude: float) -> tuple[float, float] | None:
    """A place that there is, and not the one that cameras write while they know none."""
    exists = (latitude, longitude) != (0, 0) and abs(latitude) <= 90 and abs(longitude) <= 180
    return (latitude, longitude) if exists else None


def _common(taken: Any, make: Any, model: Any) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    if when := re.match(r"(\d{4})[:-](\d\d)[:-](\d\d)[ T](\d\d:\d\d:\d\d)", str(taken)):
        facts["taken"] = f"{when[1]}-{when[2]}-{when[3]}T{when[4]}"
    words = [str(part).replace("\0", "").strip() for part in (make, model) if part]
    if words:  # many a model begins with its make
        facts["camera"] = words[-1] if words[-1].lower().startswith(words[0].lower().split(" ")[0]) else " ".join(words)
    return facts

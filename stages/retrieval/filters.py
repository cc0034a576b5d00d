"""Which items may be among the results: filters by what the index keeps of them."""

import dataclasses
import re
from typing import TYPE_CHECKING

from pipeline.errors import UsageError
from pipeline.options import option

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

FACETS = ("corpus", "split", "media_type", "camera", "place")  # columns whose values are counted
EARTH_KM, NEAR_KM = 6371.0, 25.0
COORDINATES = re.compile(r"\s*(-?\d+(?:\.\d+)?)\s*,\s*(-?\d+(?:\.\d+)?)\s*(?:,\s*(\d+(?:\.\d+)?)\s*(?:km)?\s*)?")


@dataclasses.dataclass(frozen=True)
class Filters:
    """Which items may be among the results; None allows all.

    An item without a date, place or camera passes no filter by it.
    """

    corpus: str | None = option(None, "search only this corpus")
    split: str | None = option(None, "search only this split")
    media_type: str | None = option(None, "search only images, or only videos", choices=("image", "video"))
    folder: str | None = option(None, "search only this folder of the collection", metavar="PATH")
    camera: str | None = option(None, "search only what was taken with this camera, as iphone", metavar="WORDS")
    place: str | None = option(
        None, "search only what was taken there: Munich, or a place as 48.14,11.58,25 (km around it)", metavar="PLACE"
    )
    since: str | None = option(None, "search only what was taken on this day or later", metavar="DATE")
    until: str | None = option(None, "search only what was taken on this day or before", metavar="DATE")

    def passing(self, items: "pa.Table") -> "np.ndarray | None":
        """Which rows of `items` pass, [N] bool; None for all.

        Raises:
            UsageError: No item has the value of a filter other than a date, or a date is none.
        """
        import pyarrow.compute as pc

        for date in filter(None, (self.since, self.until)):
            if not re.fullmatch(r"\d{4}(-\d\d(-\d\d)?)?", date):
                raise UsageError(f"{date!r} is not a date: give 2024, 2024-07 or 2024-07-31")
        masks = []
        for name in ("corpus", "split", "media_type", "camera", "place"):
            if value := getattr(self, name):
                where = COORDINATES.fullmatch(value) if name == "place" else None
                has_part = name in ("camera", "place")
                column = items[name]
                if where:
                    masks.append(_near(items, *(float(part or NEAR_KM) for part in where.groups())))
                    continue
                mask = pc.match_substring(column, value, ignore_case=True) if has_part else pc.equal(column, value)
                if not pc.any(mask).as_py():
                    values = sorted(pc.unique(column.drop_null()).to_pylist())
                    listed = ("; " if name == "place" else ", ").join(values[:20]) or "none"
                    more = " …" if len(values) > 20 else ""
                    raise UsageError(f"{name}: the index has {listed}{more}, but not {value!r}")
                masks.append(mask)
        if self.folder:
            start = self.folder.rstrip("/") + "/"
            masks.append(pc.or_(pc.starts_with(items["item_id"], start), pc.starts_with(items["uri"], start)))
            if not pc.any(masks[-1]).as_py():
                raise UsageError(f"folder: no item of the index is in {self.folder!r}")
        if self.since:
            masks.append(pc.greater_equal(items["taken"], self.since))
        if self.until:
            masks.append(pc.less_equal(pc.utf8_slice_codeunits(items["taken"], 0, len(self.until)), self.until))
        keep_N: np.ndarray | None = None
        for mask in masks:
            mask_N = mask.fill_null(False).to_numpy()
            keep_N = mask_N if keep_N is None else keep_N & mask_N
        return keep_N


def _near(items: "pa.Table", latitude: float, longitude: float, km: float) -> "pa.ChunkedArray":
    """Which items were taken within so many kilometres of a place, by the haversine formula."""
    import numpy as np
    import pyarrow as pa

    there_N2 = np.radians(np.stack([items[name].to_numpy() for name in ("latitude", "longitude")], 1))
    here_2 = np.radians([latitude, longitude])
    half_N2 = np.sin((there_N2 - here_2) / 2) ** 2
    share_N = half_N2[:, 0] + np.cos(here_2[0]) * np.cos(there_N2[:, 0]) * half_N2[:, 1]
    return pa.chunked_array([pa.array(2 * EARTH_KM * np.arcsin(np.sqrt(share_N)) <= km)])

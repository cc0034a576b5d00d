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
    place: str | None = option(None, "search only what was taken there: a town, region or country", metavar="PLACE")
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
        for name in FACETS:
            if value := getattr(self, name):
                column = items[name]
                contains = name in ("camera", "place")
                mask = pc.match_substring(column, value, ignore_case=True) if contains else pc.equal(column, value)
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

"""The photographs that the scikit-image and scikit-learn wheels carry: the input where none is given.

They are listed in samples.csv. Left out of those wheels: drawings, test patterns, microscopy, scans, textures, star
fields, and the second picture of the stereo pair. Licences and origins are as those packages' own documentation states
them; none is stated for the motorcycle.
"""

import csv
import importlib.util
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.sources.account import Account
from pipeline.sources.items import Defaults, SourceItem

WHEELS = {"skimage": "scikit-image", "sklearn": "scikit-learn"}  # import name → distribution


class SamplesSource:
    """The photographs of the wheels that are installed, sorted by name."""

    kind = "samples"
    name = "samples"

    def __init__(self, defaults: Defaults):
        """Find the photographs. Raises UsageError where neither wheel is installed."""
        self.account = Account()
        self._items: list[SourceItem] = []
        folders = {package: _package_folder(package) for package in WHEELS}
        with Path(__file__).with_suffix(".csv").open(encoding="utf-8", newline="") as table:
            for row in csv.DictReader(table):
                root, wheel = folders[row["package"]], WHEELS[row["package"]]
                if root and (path := root / row["path"]).is_file():
                    source = f"{wheel}: {row['maker']}"
                    self._items.append(SourceItem(path.name, str(path), defaults.split, source, row["license"]))
        if not self._items:
            raise UsageError("the sample photos are missing: pip install 'leccr[embedded]', or give --input FOLDER")
        self.summary = f"samples: {len(self._items)} photographs carried by installed packages"

    def items(self) -> Iterator[SourceItem]:
        """The photographs; see Source."""
        yield from self._items


def _package_folder(package: str) -> Path | None:
    """Where a package is installed. It is not imported: that would take a second and load compiled code."""
    spec = importlib.util.find_spec(package)
    return Path(spec.submodule_search_locations[0]) if spec and spec.submodule_search_locations else None

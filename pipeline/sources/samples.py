"""The photographs that the scikit-image and scikit-learn wheels carry: the input where none is given.

Left out of those wheels: drawings, test patterns, microscopy, scans, textures, star fields, and the second picture of
the stereo pair. Licences and origins are as those packages' own documentation states them.
"""

import importlib.util
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.sources.items import Defaults, SourceItem

NASA = "NASA Great Images, https://flic.kr/p/r9qvLn"
BROOKLYN = "Brooklyn Museum, https://www.brooklynmuseum.org/opencollection/archives/image/51611"
MIDDLEBURY = "Middlebury 2014 stereo benchmark, Scharstein et al."
SPACEX = "SpaceX, https://www.flickr.com/photos/spacexphotos/16511594820/"
CHINA = "danielbuechele, https://www.flickr.com/photos/danielbuechele/6061409035/"
FLOWER = "vultilion, https://www.flickr.com/photos/vultilion/6056698931/"

# (package, folder in it, file, licence, who made it); no licence is stated for the motorcycle.
PHOTOGRAPHS = (
    ("skimage", "data", "astronaut.png", "public domain", NASA),
    ("skimage", "data", "camera.png", "CC0", "Lav Varshney"),
    ("skimage", "data", "chelsea.png", "CC0", "Stefan van der Walt"),
    ("sklearn", "datasets/images", "china.jpg", "CC BY 2.0", CHINA),
    ("skimage", "data", "coffee.png", "CC0", "Rachel Michetti, courtesy of Pikolo Espresso Bar"),
    ("skimage", "data", "coins.png", "no known copyright restrictions", BROOKLYN),
    ("sklearn", "datasets/images", "flower.jpg", "CC BY 2.0", FLOWER),
    ("skimage", "data", "motorcycle_left.png", "", MIDDLEBURY),
    ("skimage", "data", "rocket.jpg", "public domain", SPACEX),
)
WHEELS = {"skimage": "scikit-image", "sklearn": "scikit-learn"}


class SamplesSource:
    """The photographs of the wheels that are installed, sorted by name."""

    kind = "samples"
    name = "samples"

    def __init__(self, defaults: Defaults):
        """Find the photographs. Raises UsageError where neither wheel is installed."""
        self._items: list[SourceItem] = []
        wheels: dict[str, None] = {}
        folders = {package: _package_folder(package) for package in WHEELS}
        for package, folder, file, license_name, maker in PHOTOGRAPHS:
            root, wheel = folders[package], WHEELS[package]
            if root and (root / folder / file).is_file():
                uri = str(root / folder / file)
                self._items.append(SourceItem(file, uri, defaults.split, f"{wheel}: {maker}", license_name))
                wheels[wheel] = None
        if not self._items:
            raise UsageError(
                "there is no --input, and the sample photos are not here: they come with scikit-image and "
                "scikit-learn. Run pip install 'leccr[embedded]', or give --input FOLDER"
            )
        self.summary = f"samples: {len(self._items)} photographs carried by {' and '.join(sorted(wheels))}"

    def items(self) -> Iterator[SourceItem]:
        """The photographs; see Source."""
        yield from self._items


def _package_folder(package: str) -> Path | None:
    """Where a package is installed. It is not imported: that would take a second and load compiled code."""
    spec = importlib.util.find_spec(package)
    return Path(spec.submodule_search_locations[0]) if spec and spec.submodule_search_locations else None

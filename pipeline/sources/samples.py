"""The real photographs that the scikit-image and scikit-learn wheels carry: what runs where no input is given.

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
    """The photographs of the wheels that are installed, sorted by name. Raises UsageError where neither is."""

    kind = "samples"
    name = "samples"

    def __init__(self, defaults: Defaults):
        self.defaults = defaults
        folders = {package: _folder(package) for package in WHEELS}
        self.found = [
            row for row in PHOTOGRAPHS if (folder := folders[row[0]]) and (folder / row[1] / row[2]).is_file()
        ]
        self.folders = folders
        if not self.found:
            raise UsageError(
                "got no --input, and the sample photos are not here: they come with scikit-image and scikit-learn. "
                'Run pip install -e ".[embedded]", or give --input FOLDER'
            )

    @property
    def summary(self) -> str:
        wheels = " and ".join(
            wheel for package, wheel in WHEELS.items() if any(row[0] == package for row in self.found)
        )
        return f"samples: {len(self.found)} photographs carried by {wheels}"

    def items(self) -> Iterator[SourceItem]:
        for package, folder, file, licence, maker in self.found:
            uri = str(self.folders[package] / folder / file)  # type: ignore[operator]
            yield SourceItem(file, uri, self.defaults.split, f"{WHEELS[package]}: {maker}", licence)


def _folder(package: str) -> Path | None:
    """Where a package is installed. It is not imported: that would take a second and load compiled code."""
    spec = importlib.util.find_spec(package)
    return Path(spec.submodule_search_locations[0]) if spec and spec.submodule_search_locations else None

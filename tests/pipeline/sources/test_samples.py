import importlib.util

import pytest
from PIL import Image

from pipeline.errors import UsageError
from pipeline.sources import open_source
from tests.pipeline.sources.helpers import content, listed


def test_the_photographs_decode():
    pytest.importorskip("skimage")
    pytest.importorskip("sklearn")
    items = listed(open_source(None, split="test"))
    assert len(items) == 9 and list(items) == sorted(items)
    for item in items.values():
        with Image.open(item.uri) as image:
            assert min(image.size) >= 300
        assert len(content(item)) > 10_000 and item.split == "test" and item.source.startswith("scikit-")
    assert items["flower.jpg"].license == "CC BY 2.0" and "vultilion" in items["flower.jpg"].source


def test_one_wheel_is_enough_and_is_not_imported(tmp_path, monkeypatch):
    (tmp_path / "skimage" / "data").mkdir(parents=True)
    (tmp_path / "skimage" / "__init__.py").write_text("raise RuntimeError('was imported')")
    Image.new("RGB", (8, 8)).save(tmp_path / "skimage" / "data" / "coffee.png")
    find_spec = importlib.machinery.PathFinder.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: find_spec(name, [str(tmp_path)]))
    assert list(listed(open_source(None))) == ["coffee.png"]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'leccr\[embedded\]'"):
        open_source(None)

import pytest

from pipeline.storage.files import location
from tests.object_store import ObjectStore


@pytest.fixture(scope="session")
def object_store(tmp_path_factory):
    """A running object store; this process finds it too."""
    store = ObjectStore(tmp_path_factory.mktemp("weed"))
    store.start()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in store.environment.items():
            patch.setenv(name, value)
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield store
    store.stop()


@pytest.fixture(params=["disk", "store"])
def folder(request, tmp_path):
    """An empty folder on a disk, or in an object store."""
    if request.param == "disk":
        return tmp_path
    request.getfixturevalue("object_store")
    return location(f"s3://corpora/{tmp_path.name}-{id(request)}")

"""Many small corpora are written here: without waiting for the disk."""

import os

import pytest


@pytest.fixture(scope="package", autouse=True)
def no_fsync():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield

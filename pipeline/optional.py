"""Packages that only some commands need: imported when they are needed, by their extra when they are missing."""

import contextlib
import functools
import importlib
import importlib.abc
import logging
import sys
from collections.abc import Iterator
from typing import Any

from pipeline.errors import UsageError


def import_optional(module: str, extra: str, purpose: str) -> Any:
    """Import a module of an optional package.

    Args:
        module: Its name, for example `ctranslate2.converters`.
        extra: The extra of this project that installs the package.
        purpose: What needs the package; the subject of the message.

    Raises:
        UsageError: The package is not installed or does not load. The message says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.split(".")[0]
        raise UsageError(
            f"{purpose} needs {package}, which cannot be imported ({error}): pip install 'leccr[{extra}]'"
        ) from error


class _NotInstalled(importlib.abc.MetaPathFinder):
    def find_spec(self, name: str, path: object, target: object = None) -> None:
        if name in ("pandas", "bson", "pymongo"):
            raise ModuleNotFoundError(f"{name} is not used here", name=name)


@contextlib.contextmanager
def quiet_imports() -> Iterator[None]:
    """Silence what Beam logs when it is imported, and keep it and pyarrow from importing what they can do without.

    They import pandas and MongoDB's client wherever those are installed, which costs 0.3 s and 40 MiB for nothing.
    """
    logging.disable(logging.WARNING)
    sys.meta_path.insert(0, finder := _NotInstalled())
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        logging.disable(logging.NOTSET)


@functools.cache
def load_pyarrow() -> None:
    """Import pyarrow without pandas, which it looks for once, when it makes its first array."""
    with quiet_imports():
        import pyarrow as pa

        pa.array([0])

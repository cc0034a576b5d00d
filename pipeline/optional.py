"""Packages that only some commands need: imported when they are needed, by their extra when they are missing."""

import importlib
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

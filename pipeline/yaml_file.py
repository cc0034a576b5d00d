"""YAML files that a user writes."""

from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import UsageError


def read_yaml(path: Path, option: str, example: str, loader: Any = yaml.SafeLoader) -> dict[Any, Any]:
    """Read a mapping from a YAML file.

    Args:
        path: The file.
        option: The option that named it.
        example: A mapping as it is expected, for error messages.
        loader: A YAML loader that makes plain values only.

    Raises:
        UsageError: The file cannot be read, is not YAML, or does not hold a mapping.
    """
    try:
        loaded = yaml.load(path.read_text(encoding="utf-8"), Loader=loader)  # noqa: S506 - plain values only
    except OSError as error:
        raise UsageError(f"{option}: cannot read {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{option}: {path} is not YAML in UTF-8: {' '.join(str(error).split())}") from error
    if not isinstance(loaded, dict) or not loaded:
        raise UsageError(f"{option}: {path} does not hold a mapping, expected {example}")
    return loaded

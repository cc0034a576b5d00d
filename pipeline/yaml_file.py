"""YAML files that a user writes: read as a mapping, or told in one line what is wrong."""

from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import UsageError


def read_yaml(path: Path, option: str, wanted: str, loader: Any = yaml.SafeLoader) -> dict[Any, Any]:
    """The mapping in `path`, which the option named. `loader` makes plain values only.

    Raises UsageError where the file cannot be read, is no YAML, or holds no mapping: `wanted` shows one.
    """
    try:
        loaded = yaml.load(path.read_text(encoding="utf-8"), Loader=loader)  # noqa: S506 - plain values only
    except OSError as error:
        raise UsageError(f"{option}: cannot read {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{option}: {path} is not YAML in UTF-8: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise UsageError(f"{option}: {path} is nested too deeply: wanted {wanted}") from error
    if not isinstance(loaded, dict) or not loaded:
        raise UsageError(f"{option}: {path} holds no mapping: wanted {wanted}")
    return loaded

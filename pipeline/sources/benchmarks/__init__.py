"""Benchmarks as their owners distribute them: one module a set, opened by its name alone, never by a guess."""

import importlib
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.sources.benchmarks.checks import Options
from pipeline.sources.items import Source
from pipeline.sources.locations import absolute, is_url

BENCHMARKS = ("multi30k", "mscoco", "vatex", "msrvtt_cn", "leccr_release", "xm3600", "xtd")


def open_benchmark(kind: str, input: str, options: Options) -> Source:
    """The benchmark `kind` in the folder `input`. Raises UsageError where the folder is not that set, or not whole.

    A set's module is imported when it is asked for: nobody else pays for it.
    """
    if is_url(absolute(input)):
        raise UsageError(f"--source {kind}: got {input}, wanted a folder on this machine: copy the set here first")
    root = Path(absolute(input))
    if not root.is_dir():
        raise UsageError(f"--source {kind}: got {input}, wanted the folder of the set: give that, unpacked")
    module = f"pipeline.sources.benchmarks.{kind}"
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise UsageError(
            f"--source {kind}: got no reader of that set in this installation, wanted one: install it anew"
        ) from error
    source: Source = getattr(found, f"open_{kind}")(root, options)
    return source

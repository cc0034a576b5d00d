"""Benchmarks as their owners distribute them: one module per set, opened only by its name, never by a guess.

Each module begins with the layout of the folder, and has `read_set(importer)`, which adds the items below its root.
"""

import importlib
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.sources.benchmarks.importer import Importer, Options
from pipeline.sources.items import Source
from pipeline.sources.locations import absolute, is_url

BENCHMARKS = ("multi30k", "mscoco", "vatex", "msrvtt_cn", "leccr_release", "flickr8k", "flickr30k", "xm3600", "xtd")


def open_benchmark(kind: str, input: str, options: Options) -> Source:
    """The benchmark `kind` in the folder `input`. Its module is imported only when it is asked for.

    Raises:
        UsageError: The folder is not that set, or not all of it.
    """
    if is_url(absolute(input)):
        raise UsageError(f"--source {kind}: {input} is not on this machine. Copy the set to a local folder first.")
    root = Path(absolute(input))
    if not root.is_dir():
        raise UsageError(f"--source {kind}: {input} is not a folder. Give the folder of the set, unpacked.")
    importer = Importer(kind, root, options)
    importlib.import_module(f"pipeline.sources.benchmarks.{kind}").read_set(importer)
    return importer.finish()

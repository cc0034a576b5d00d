"""Train LECCR on one or more corpora.

    accelerate launch stages/train.py --recipe NAME [--data CORPUS]… --output RUN [key=value …]

Started again with --resume, a run that was killed goes on as if it had not been.
"""

import argparse
import contextlib
import functools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs

from pipeline.errors import UsageError
from pipeline.runstate import locked
from stages import building, curves, runs
from stages.processes import on_main, run_program
from stages.settings import Settings, described, recipe_module, recipes, resolve
from stages.trainer import Trainer
from stages.validation import label


def main(argv: Sequence[str]) -> int:
    options = parser().parse_args(argv)
    given = {"micro_batch": options.micro_batch} if options.micro_batch is not None else {}
    settings = resolve(options.recipe, options.settings, **given)
    accelerator = start(settings)
    say = print if accelerator.is_main_process else _silent
    run = Path(options.output)
    with held(run):
        corpora = corpora_of(options, settings, run)
        data = building.open_data(settings, corpora, accelerator)
        checkpoint = on_main(lambda: runs.begin(run, settings, corpora, options.resume, options.overwrite, say))
        model, processor = building.load(settings, data, checkpoint, accelerator)
        trainer = Trainer(...)
        if checkpoint:
            trainer.resume(checkpoint)
        trainer.run()
    return 0

"""Index the media of corpora for search: media → vectors → an index folder.

    python stages/index.py --checkpoint RUN|FOLDER|NAME|embedded --data CORPUS… --output INDEX

Run it again to bring the index up to date. The corpora get a table `vectors`, as from `--stage embed`: unchanged items
keep theirs, and after a kill the same command resumes. Searches use the old index until the new one is published in a
single step. `embedded` needs no training and no GPU.
"""

import argparse
import contextlib
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.corpus import commit
from pipeline.corpus.table import FAILURES, INDEXES, Table, complete, manifest_hash, read_json, state_folder, write_json
from pipeline.errors import EnvironmentTrouble, UsageError
from pipeline.options import add_options, option, read_options
from pipeline.storage.files import location, path_on_disk
from stages import options as stage_options
from stages.driver import RunOptions, run_stages
from stages.embed import Embed
from stages.processes import Parser, run_program
from stages.update import record_command

if TYPE_CHECKING:
    from stages.retrieval.corpus_items import CorpusItems
    from stages.retrieval.encoders import LateFusion, Space
    from stages.retrieval.index_writer import IndexWriter


@dataclass(frozen=True)
class IndexOptions:
    """What to index, and how to store it."""

    checkpoint: str | None = option(
        None,
        "a run folder, a model folder, a name on the Hub, or embedded (default: what encoded the vectors of --data)",
    )
    data: tuple[Path, ...] = option((), "a corpus with a table training; may be repeated", parse=location, repeat=True)
    split: str | None = option(None, "the split to index (default: all)")
    views: tuple[str, ...] = option((), "views to keep (default: those of the training run, or all)")
    captions: bool = option(True, "search human captions too")
    late_fusion: Path | None = option(
        None, "report of score.py --output with the late fusion to use in place of the model's own", metavar="FILE"
    )
    dtype: str = option("float16", "how vectors are stored", choices=("float32", "float16"))
    kind: str = option("auto", "kind of index; auto chooses by size", choices=("auto", "flat", "ivf"))
    batch_size: int = option(32, "items encoded at once on each device", at_least=1)
    overwrite: bool = option(False, "make the index anew")
    brief: bool = option(False, argparse.SUPPRESS)


def main(argv: Sequence[str]) -> int:
    """Run the program; returns its exit status."""
    parsed = parser().parse_args(argv)
    options = read_options(IndexOptions, parsed)
    update(parsed.output, options)
    for corpus in options.data:
        record_index(corpus, parsed.output, argv)
    return 0


def update(output: Path, options: IndexOptions) -> None:
    """Bring the vectors of the corpora up to date, and make the index of them."""
    if not options.data:
        raise UsageError("give --data CORPUS: what to index")
    from stages.retrieval.corpus_items import CorpusItems
    from stages.retrieval.encoders import open_space, unrelated_texts

    checkpoint = options.checkpoint or embedded_with(options.data)
    space = open_space(checkpoint, read_late_fusion(options.late_fusion) if options.late_fusion else None)
    items = CorpusItems(options.data, options.split, options.views or space.slot_views, options.captions)
    with open_writer(output, options, space, items) as writer:
        for corpus in options.data:
            embed(corpus, Embed.of(space, options.batch_size))
        index = writer.publish(lambda: items.blocks(space), space.texts(unrelated_texts()))
    if options.brief:
        return
    _print(f"{output}: {len(index):,} items")
    _print(f'next: python stages/search.py --index {shlex.quote(str(output))} "eine Katze"')


def embedded_with(corpora: Sequence[Path]) -> str:
    """What encoded the vectors that the first corpus has."""
    if not complete(corpora[0], "vectors"):
        raise UsageError(f"{corpora[0]} has no vectors yet: give --checkpoint RUN|FOLDER|NAME|embedded")
    return Table(corpora[0], "vectors").manifest["checkpoint"]


def embed(corpus: Path, stage: Embed) -> None:
    """Run `--stage embed` unless the vectors of the corpus are of this model and of the present items."""
    current = {"settings": stage.settings(), "parents": {"training": manifest_hash(corpus, "training")}, "failures": 0}
    if complete(corpus, "vectors") and current.items() <= Table(corpus, "vectors").manifest.items():
        return
    stored = commit.stored_settings(corpus, stage.name)
    if (is_other := stored not in (None, stage.settings())) and not stage.keeps(stored or {}):
        _print(f"note: the vectors of {corpus} are of another model and are made anew")
    run_stages(RunOptions(output=corpus, overwrite=is_other, brief=True), [], lambda: [stage])
    arguments = ["--stage", "embed", "--output", str(corpus.absolute()), *stage.arguments()]
    record_command(stage_options.parse(arguments)[0], arguments)  # for updates of the corpus
    if failed := Table(corpus, "vectors").manifest["failures"]:
        _print(f"note: {failed:,} items of {corpus} are left out, see {corpus / 'vectors' / FAILURES}")


def record_index(corpus: Path, output: Path, argv: Sequence[str]) -> None:
    """Let a corpus know an index that was made from it, so that an update of the corpus makes the index again."""
    path, name = state_folder(corpus) / INDEXES, str(output.absolute())
    arguments = [argument for argument in argv if argument != "--overwrite"]
    with contextlib.suppress(OSError, EnvironmentTrouble):  # a corpus that cannot be written
        path.parent.mkdir(exist_ok=True)
        write_json(path, {**(read_json(path) or {}), name: {"arguments": arguments, "folder": str(Path.cwd())}})


def read_late_fusion(report: Path) -> "LateFusion":
    """The late fusion of a report of score.py. Raises UsageError where it has none."""
    from stages.retrieval.encoders import LateFusion

    settings = (read_json(report) or {}).get("settings", {})
    if not settings.get("views"):
        raise UsageError(f"--late-fusion {report} has no late fusion: score.py on a corpus with descriptions writes it")
    return LateFusion(
        global_weight=settings["global_weight"],
        pooling=settings["pooling"],
        view_weights=settings["view_weights"],
        views=settings["views"],
    )


@contextlib.contextmanager
def open_writer(output: Path, options: IndexOptions, space: "Space", items: "CorpusItems") -> "Iterator[IndexWriter]":
    """Hold the index for the whole run, so that a second run is refused before it encodes anything.

    Raises:
        UsageError: The index was made with other settings.
    """
    from stages.retrieval.index_writer import index_writer

    origin, dtype = {"space": space.identity, **items.origin()}, options.dtype
    with index_writer(
        output, origin=origin, width=space.width, dtype=dtype, kind=options.kind, overwrite=options.overwrite
    ) as writer:
        if writer.old:
            before = writer.old.origin
            for name, old, new in (
                ("--checkpoint", before["space"]["fingerprint"], space.identity["fingerprint"]),
                ("--split", before["split"], origin["split"]),
                ("--views", before["views"], origin["views"]),
                ("--dtype", writer.old.manifest["dtype"], dtype),
            ):
                if old != new:
                    raise UsageError(
                        f"--output {output} was made with {name} {old}, but now {new} was given. Give the same, "
                        "another --output, or --overwrite to make it anew"
                    )
        yield writer


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    program = Parser("index.py", description=__doc__.splitlines()[0], allow_abbrev=False)
    program.add_argument("--output", required=True, type=path_on_disk, help="folder of the index")
    add_options(program, IndexOptions)
    return program


if __name__ == "__main__":
    sys.exit(run_program(main))

"""Index the media of corpora for search: media → vectors → an index folder.

    python stages/index.py --checkpoint RUN|FOLDER|NAME|embedded --data CORPUS… --output INDEX
    python stages/index.py --output INDEX --remove CORPUS/ITEM…

Run it again to bring the index up to date: it keeps the vectors of unchanged items, encodes new and changed items, and
drops items that are gone. After a kill, the same command resumes. Searches use the old index until the new one is
published in a single step. `embedded` needs no training and no GPU. Start it with `accelerate launch` instead of
`python` to encode on several processes.
"""

import argparse
import contextlib
import functools
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.corpus.table import INDEXES, read_json, state_folder, write_json
from pipeline.errors import EnvironmentTrouble, UsageError
from pipeline.options import add_options, option, read_options
from pipeline.storage.files import location, path_on_disk
from stages.processes import Parser, accelerated, on_main, run_program

if TYPE_CHECKING:
    import pyarrow as pa

    from stages.retrieval.corpus_items import CorpusItems, Place
    from stages.retrieval.encoders import LateFusion, Space
    from stages.retrieval.index_writer import IndexWriter
    from stages.scoring.embed import Share

PART = 20_000  # items whose vectors are held in memory at once, and the most that a killed run loses


@dataclass(frozen=True)
class IndexOptions:
    """What to index, and how to store it."""

    checkpoint: str | None = option(None, "a run folder, a model folder, a name on the Hub, or embedded")
    data: tuple[Path, ...] = option((), "a corpus with a table training; may be repeated", parse=location, repeat=True)
    split: str | None = option(None, "the split to index (default: all)")
    views: tuple[str, ...] = option((), "views to read and keep (default: those of the training run, or all)")
    late_fusion: Path | None = option(
        None, "report of score.py --output with the late fusion to use in place of the model's own", metavar="FILE"
    )
    dtype: str = option("float16", "how vectors are stored", choices=("float32", "float16"))
    kind: str = option("auto", "kind of index; auto chooses by size", choices=("auto", "flat", "ivf"))
    batch_size: int = option(32, "items encoded at once in each process", at_least=1)
    overwrite: bool = option(False, "make the index anew")


def main(argv: Sequence[str]) -> int:
    """Run the program; returns its exit status."""
    parsed = parser().parse_args(argv)
    if parsed.remove:
        remove(parsed.output, parsed.remove)
    else:
        options = read_options(IndexOptions, parsed)
        update(parsed.output, options)
        for corpus in options.data:
            record_index(corpus, parsed.output, argv)
    return 0


def update(output: Path, options: IndexOptions) -> None:
    """Bring the index up to date with the corpora."""
    if not options.checkpoint or not options.data:
        raise UsageError("give --checkpoint RUN|FOLDER|NAME|embedded and --data CORPUS: what to encode, and with what")
    import pyarrow.compute as pc

    from stages.retrieval.corpus_items import CorpusItems, Place
    from stages.retrieval.encoders import open_space
    from stages.scoring.embed import Share

    accelerator = accelerated("no")
    space = open_space(options.checkpoint, read_late_fusion(options.late_fusion) if options.late_fusion else None)
    space.to(accelerator.device)
    items = CorpusItems(options.data, options.split, options.views or space.slot_views)
    share = Share(accelerator, options.batch_size)
    contents: list[pa.Array] = []  # these two have a member on rank 0 only
    writers: list[IndexWriter] = []
    with contextlib.ExitStack() as stack:

        def begin() -> list[Place]:
            writers.append(stack.enter_context(open_writer(output, options, space, items)))
            places, all_contents = items.scan()
            contents.append(all_contents)
            new_N = pc.invert(pc.is_in(all_contents, value_set=writers[0].known_contents()))
            todo = places[new_N.to_numpy(zero_copy_only=False)].tolist()
            num_old = len(places) - len(todo)
            _print(f"{output}: {len(places):,} items, {num_old:,} unchanged, {len(todo):,} to encode")
            return [Place(*place) for place in todo]

        todo = on_main(begin)
        for start in range(0, len(todo), PART):
            block = encode(space, items, todo[start : start + PART], share)
            on_main(functools.partial(lambda block: writers[0].add(block), block))

        def publish() -> None:
            index = writers[0].publish(contents[0])
            _print(f"{output}: {len(index):,} items, {len(todo):,} encoded now")
            _print(f'next: python stages/search.py --index {shlex.quote(str(output))} "eine Katze"')

        on_main(publish)
    accelerator.end_training()


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
        raise UsageError(
            f"--late-fusion {report} has no late fusion of views. Write it with score.py --output {report} on a corpus "
            "with descriptions"
        )
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


def encode(space: "Space", items: "CorpusItems", places: "Sequence[Place]", share: "Share") -> "pa.Table":
    """Encode items, and their descriptions separately. Every rank encodes its share and gets the whole result."""
    import numpy as np
    import torch

    from stages.data.samples import ALL, select_views
    from stages.retrieval.index_writer import with_vectors

    records = [items.record(place) for place in places]
    texts = [text["text"] for record in records for text in record["texts"]]
    most = max(len(record["texts"]) for record in records)

    def load(rows: list[int]) -> Any:
        return [items.media(places[row]) for row in rows], rows

    def encode_items(loaded: Any) -> tuple[torch.Tensor]:
        frames, rows = loaded
        views = space.slot_views or (ALL,)
        descriptions = [select_views(records[row]["texts"], views) for row in rows]
        return (torch.from_numpy(space.items(frames, descriptions, most)),)

    def encode_texts(rows: list[int]) -> tuple[torch.Tensor]:
        return (torch.from_numpy(space.descriptions([texts[row] for row in rows])),)

    numbers = torch.arange(len(records))
    (media_NRE,) = share.encode("items", numbers, range(len(records)), load, encode_items)
    text_ME = torch.empty(0, space.width)
    if texts:
        numbers = torch.arange(len(texts))
        (text_ME,) = share.encode("descriptions", numbers, range(len(texts)), lambda rows: rows, encode_texts)
    return with_vectors(records, media_NRE.numpy(), np.asarray(text_ME))


def remove(output: Path, names: Sequence[str]) -> None:
    """Remove items by name; no model is needed."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from stages.retrieval.index_reader import Index
    from stages.retrieval.index_writer import index_writer

    manifest = Index.open(output).manifest
    settings = {"origin": manifest["origin"], "width": manifest["width"], "dtype": manifest["dtype"]}
    with index_writer(output, **settings, kind=manifest["requested_kind"]) as writer:
        assert writer.old
        gone = []
        for name in names:
            corpus, _, item_id = name.partition("/")
            number = writer.old.number(corpus, item_id) if item_id else None
            if number is None:
                raise UsageError(f"--remove {name}: there is no such item. Nothing was removed; give CORPUS/ITEM")
            gone.append(writer.old.items["content"][number].as_py())
        contents = writer.old.items["content"]
        keep = pc.invert(pc.is_in(contents, value_set=pa.array(gone, pa.string())))
        index = writer.publish(contents.filter(keep))
    _print(f"{output}: {len(set(gone)):,} removed, {len(index):,} left")


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    program = Parser("index.py", description=__doc__.splitlines()[0], allow_abbrev=False)
    program.add_argument("--output", required=True, type=path_on_disk, help="folder of the index")
    add_options(program, IndexOptions)
    program.add_argument("--remove", nargs="+", metavar="CORPUS/ITEM", help="remove these items and do nothing else")
    return program


if __name__ == "__main__":
    sys.exit(run_program(main))

"""Queries on a command line, and their results as they are printed: what search and find share."""

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import MediaError, UsageError
from pipeline.optional import load_pyarrow
from pipeline.options import add_options
from stages.retrieval.filters import Filters

if TYPE_CHECKING:
    from PIL import Image

    from stages.retrieval.engine import Hit, Query

BATCH = 64  # queries answered at once


def read_queries(options: argparse.Namespace) -> "list[tuple[str, Query]]":
    """Every query with its name: words, a picture, or both. Raises UsageError for one that cannot be answered."""
    load_pyarrow()
    from stages.retrieval.engine import Query, check_queries

    texts = [*options.query, *_texts(options.queries)] or [""] * bool(options.image)
    pictures = [(path, path and _picture(path)) for path in options.image or [None]]
    queries = [
        (" + ".join(str(part) for part in (path, text) if part), Query(text, picture, options.exclude))
        for text in texts
        for path, picture in pictures
    ]
    check_queries([query for _, query in queries], options.k, options.hybrid, options.offset)
    if options.picture:
        from stages.retrieval.result_sheet import check_path

        check_path(options.picture)
    return queries


def answer(options: argparse.Namespace, queries: "Sequence[tuple[str, Query]]") -> None:
    """Print the results of the queries."""
    from stages.retrieval.engine import Index

    finder = Index.open(options.index, options.checkpoint, options.data, options.translate)
    if not len(finder):
        raise UsageError(f"--index {options.index} is empty. Run index.py on a corpus that has items")
    filters = Filters(**{name: value for name, value in vars(options).items() if name in Filters.__match_args__})
    results: list[tuple[str, list[Hit]]] = []
    for start in range(0, len(queries), BATCH):
        names, batch = zip(*queries[start : start + BATCH], strict=True)
        answers = finder.find(batch, options.k, offset=options.offset, hybrid=options.hybrid, filters=filters)
        for name, query, hits in zip(names, batch, answers, strict=True):
            if note := finder.note(query.words):
                print(f"note: {name}: {note}", file=sys.stderr)
            if options.fitting:
                hits = [hit for hit in hits if hit.fits is not False]
            print(_json_line(name, hits) if options.json else _lines(name, hits), flush=True)
            results.append((name, hits))
    if options.picture:
        from stages.retrieval.result_sheet import draw_results

        draw_results(options.picture, finder, results)


def _texts(file: Path | None) -> list[str]:
    try:
        lines = _contents(file, "--queries").decode("utf-8-sig").splitlines() if file else []
    except UnicodeDecodeError as error:
        raise UsageError(f"--queries {file}: byte {error.start} is not UTF-8. Save it as UTF-8") from error
    return [line.strip() for line in lines if line.strip()]


def _picture(path: Path) -> "Image.Image":
    from stages.retrieval.engine import open_picture

    try:
        return open_picture(_contents(path, "--image"))
    except MediaError as error:
        raise UsageError(f"--image {path} is not a picture: {error}") from error


def _contents(path: Path, option: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{option} {path} cannot be read: {error.strerror}") from error


def _json_line(query: str, hits: "Sequence[Hit]") -> str:
    return json.dumps({"query": query, "hits": [dataclasses.asdict(hit) for hit in hits]}, ensure_ascii=False)


def _lines(query: str, hits: "Sequence[Hit]") -> str:
    """The query, then each result: rank, score, item and path, and the description nearest to the query."""
    lines = [query]
    if hits and all(hit.fits is False for hit in hits):
        lines.append("      nothing fits well; the nearest are:")
    for hit in hits:
        where = f"{hit.corpus}/{hit.item_id}" + (f"  ({hit.uri})" if hit.uri else "")
        at = f"  at {hit.moment_s:.0f} s" if hit.moment_s is not None else ""
        lines.append(f"{hit.rank:>4}  {hit.score:6.3f}  {where}{at}")
        if hit.text:
            lines.append(f"{'':14}{hit.view}: {hit.text}")
    return "\n".join(lines if hits else [query, "      nothing found"])


def add_query_options(program: argparse.ArgumentParser, metavar: str | None = None, first: str = "") -> None:
    """Add the queries, and what of their results is printed.

    Args:
        program: The command line.
        metavar: Of its positional arguments.
        first: What the first of them is, if it is not a query.
    """
    add = program.add_argument
    add("query", nargs="*", metavar=metavar, help=f"{first}text in any language that the model knows; may be repeated")
    add("--image", action="append", default=[], type=Path, metavar="FILE", help="a picture as query, also with words")
    add("--queries", type=Path, metavar="FILE", help="a text file of queries, one per line")
    add("-k", type=int, default=10, help="results of each query (default: 10)")
    add("--offset", type=int, default=0, help="how many of the best results are left out (default: 0)")
    add(
        "--hybrid",
        type=float,
        metavar="WEIGHT",
        help="share of text-to-text similarity in the score, from 0 to 1 (default: 0)",
    )
    add("--not", dest="exclude", default="", metavar="WORDS", help="what the results should not show; moves it down")
    add("--fitting", action="store_true", help="leave out what does not fit, as far as the index can tell")
    add_options(program, Filters)
    add("--translate", default="", metavar="MODEL", help="translates queries of other languages to English first")
    add("--picture", type=Path, metavar="FILE.png", help="draw the results, one row per query")
    add("--json", action="store_true", help="print a line of JSON for each query")

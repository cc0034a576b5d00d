"""Find pictures and videos: queries in any language, or a picture, against an index.

python stages/search.py --index INDEX "eine Katze" -k 5
python stages/search.py --index INDEX --image PHOTO
python stages/search.py --index INDEX --queries FILE --json      one query a line, one JSON line each
python stages/search.py --index INDEX "ein Hund" "犬" --picture FOUND.png
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import UsageError
from stages.processes import Parser, run_program
from stages.retrieval.engine import Hit, check_queries, open_finder, open_picture

BATCH = 64  # queries at once


def main(argv: Sequence[str]) -> int:
    options = parser().parse_args(argv)
    asked = list(queries(options))
    if not asked:
        raise UsageError(f"--queries {options.queries}: got no query, wanted one a line")
    check_queries([query for _, query in asked], options.k, options.hybrid)
    if options.picture:
        from stages.retrieval.result_sheet import check, draw  # late: who wants no picture waits for no matplotlib

        check(options.picture)
    finder = open_finder(options.index, options.checkpoint, options.data)
    if not len(finder):
        raise UsageError(f"--index {options.index}: holds no items: run index.py on a corpus that has some")
    chosen = {name: getattr(options, name) for name in ("corpus", "split", "media_type")}
    shown: list[tuple[str, list[Hit]]] = []
    for start in range(0, len(asked), BATCH):
        part = asked[start : start + BATCH]
        found = finder.find([query for _, query in part], options.k, hybrid=options.hybrid, **chosen)
        for (name, _), hits in zip(part, found, strict=True):
            print(as_json(name, hits) if options.json else as_lines(name, hits), flush=True)
            shown.append((name, hits))
    if options.picture:
        draw(options.picture, finder, shown, lambda line: print(line, file=sys.stderr, flush=True))
    return 0


def queries(options: argparse.Namespace) -> Any:
    """(as the user gave it, text or picture). Raises UsageError for none, or a file that is not what it should be."""
    if not (options.query or options.image or options.queries):
        raise UsageError('got no query, wanted one: "eine Katze", --image FILE, or --queries FILE')
    yield from ((text, text) for text in options.query)
    for path in options.image or ():
        yield str(path), open_picture(contents(path, "--image"), f"--image {path}")
    if options.queries:
        try:
            text = contents(options.queries, "--queries").decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise UsageError(
                f"--queries {options.queries}: byte {error.start} is not UTF-8: save it as UTF-8"
            ) from error
        yield from ((line, line) for line in map(str.strip, text.splitlines()) if line)


def contents(path: Path, option: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{option} {path}: cannot be read: {error.strerror}") from error


def as_json(query: str, hits: Sequence[Hit]) -> str:
    return json.dumps({"query": query, "hits": [dataclasses.asdict(hit) for hit in hits]}, ensure_ascii=False)


def as_lines(query: str, hits: Sequence[Hit]) -> str:
    """The query, then a line a result: rank, score, item and path, and the nearest of its descriptions."""
    lines = [query]
    for hit in hits:
        where = f"{hit.corpus}/{hit.item_id}"
        lines.append(f"{hit.rank:>4}  {hit.score:6.3f}  {where}" + (f"  ({hit.uri})" if hit.uri else ""))
        if hit.text:
            lines.append(f"{'':14}{hit.view}: {hit.text}")
    return "\n".join(lines if hits else [*lines, "      nothing found"])


def parser() -> argparse.ArgumentParser:
    made = Parser("search.py", description=__doc__.splitlines()[0], allow_abbrev=False)
    add = made.add_argument
    add("query", nargs="*", help="in any language that the model knows; several are answered one after the other")
    add("--index", required=True, type=Path, help="folder that index.py made")
    add("--image", action="append", type=Path, metavar="FILE", help="a picture as the query; may be repeated")
    add("--queries", type=Path, metavar="FILE", help="a text file of queries, one a line")
    add("-k", type=int, default=10, help="results a query (10)")
    add("--hybrid", type=float, metavar="WEIGHT", help="share of text-to-text nearness in the score, 0 to 1 (0)")
    add("--corpus", help="find in this corpus alone")
    add("--split", help="find in this split alone")
    add("--media-type", choices=("image", "video"), help="find these alone")
    add("--picture", type=Path, metavar="FILE.png", help="draw what was found, a row a query")
    add("--json", action="store_true", help="a line of JSON a query")
    add("--checkpoint", help="where the index's model is by now (where it was)")
    add("--data", action="append", type=Path, default=[], help="where a corpus of the index is by now (where it was)")
    return made


if __name__ == "__main__":
    sys.exit(run_program(main))

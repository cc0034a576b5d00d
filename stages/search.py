"""Find pictures and videos: words in any language, a picture, or both, against an index.

python stages/search.py --index INDEX "eine Katze" -k 5
python stages/search.py --index INDEX --image PHOTO "at night"
python stages/search.py --index INDEX --queries FILE --json      one query per line, one JSON line for each
python stages/search.py --index INDEX "ein Hund" "犬" --picture FOUND.png
"""

import argparse
import functools
import sys
from collections.abc import Sequence

from pipeline.errors import UsageError
from pipeline.storage.files import location, path_on_disk
from stages.processes import Parser, run_program
from stages.retrieval.queries import add_query_options, answer, read_queries


def main(argv: Sequence[str]) -> int:
    """Run the program; returns its exit status."""
    options = parser().parse_intermixed_args(argv)
    queries = read_queries(options)
    if not queries:
        raise UsageError('there is no query. Give one: "eine Katze", --image FILE, or --queries FILE with one a line')
    answer(options, queries)
    return 0


@functools.cache
def parser() -> argparse.ArgumentParser:
    """The command line."""
    program = Parser("search.py", description=__doc__.splitlines()[0], allow_abbrev=False)
    program.add_argument("--index", required=True, type=path_on_disk, help="folder that index.py made")
    add_query_options(program)
    add = program.add_argument
    add("--checkpoint", help="where the index's model is now, if it was moved")
    add("--data", action="append", type=location, default=[], help="where a corpus of the index is, if it was moved")
    return program


if __name__ == "__main__":
    sys.exit(run_program(main))

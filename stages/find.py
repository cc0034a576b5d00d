"""From a folder of pictures to results in one command.

    leccr find PHOTOS "eine Katze"      describes and indexes the folder if that has not been done, then searches it
    leccr find PHOTOS                   only brings it up to date; so does leccr update PHOTOS
    leccr serve PHOTOS                  searches it in the browser

If the folder has changed since, only what is new is paid for. What is made of a folder is in the user's data directory,
usually ~/.local/share/leccr ($XDG_DATA_HOME): a corpus, which every other command takes by the name of the folder, and
its index. Whatever interrupts a run, the same command resumes it.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Sequence

from pipeline.errors import Interrupted, PipelineError, UsageError
from stages.processes import Parser, run_program
from stages.retrieval.collection import Collection, add_update_options, bring_up_to_date
from stages.retrieval.queries import add_query_options, answer, read_queries


def main(argv: Sequence[str]) -> int:
    """Run the program; returns its exit status."""
    options = parser().parse_intermixed_args(argv)
    if not options.query:
        raise UsageError('give the folder of your pictures: leccr find FOLDER "eine Katze"')
    folder, *options.query = options.query
    collection, queries = Collection.of(folder), read_queries(options)
    try:
        status = bring_up_to_date(collection, options)
    except PipelineError as error:
        if isinstance(error, Interrupted | UsageError) or not collection.index.is_dir():
            raise
        print(f"error: {error}. The results are as before the last changes", file=sys.stderr, flush=True)
        status = error.status
    options.index, options.checkpoint, options.data = collection.index, None, []
    if queries:
        answer(options, queries)
        return status
    if options.json:
        from stages.retrieval.index_reader import read_manifest

        manifest = read_manifest(collection.index) or {}
        paths = {name: str(getattr(collection, name)) for name in ("folder", "corpus", "index")}
        print(json.dumps({**paths, "items": manifest["items"], "encoder": manifest["origin"]["space"]["name"]}))
    where = shlex.quote(folder)
    print(f'next: leccr find {where} "eine Katze", or in the browser: leccr serve {where}', file=sys.stderr)
    return status


def parser() -> argparse.ArgumentParser:
    """The command line."""
    program = Parser("leccr find", description=__doc__.splitlines()[0], allow_abbrev=False)
    add_query_options(program, "FOLDER QUERY", "the folder of pictures and videos, then queries: ")
    add_update_options(program)
    return program


if __name__ == "__main__":
    sys.exit(run_program(main))

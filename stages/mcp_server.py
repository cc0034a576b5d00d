"""Search for assistants: a server of the Model Context Protocol, on standard input and output, that only reads.

leccr mcp-server PHOTOS         a folder that leccr find has indexed, or an index folder
"""

import argparse
import contextlib
import dataclasses
import io
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import EnvironmentTrouble, MediaError, PipelineError
from pipeline.optional import import_optional, load_pyarrow
from stages.processes import Parser, run_program

if TYPE_CHECKING:
    from mcp.server import MCPServer

    from stages.retrieval.engine import Index

SIDE = 768  # pixels of the longer side of pictures that are sent


def main(argv: Sequence[str]) -> int:
    """Run the program; returns its exit status."""
    folder = parser().parse_args(argv).folder
    import_optional("mcp", "mcp", "the server for assistants")
    load_pyarrow()
    from stages.retrieval.engine import Index

    create_server(Index.open(folder)).run("stdio")
    return 0


def create_server(index: "Index") -> "MCPServer":
    """The server of an index, with the tools `search`, `similar`, `item` and `facets`."""
    from mcp.server import MCPServer
    from mcp.server.mcpserver import Image
    from mcp.server.mcpserver.exceptions import ToolError
    from mcp.types import ToolAnnotations

    from stages.retrieval.filters import Filters

    server = MCPServer("leccr", instructions=f"Finds pictures and videos. Queries may be in {index.space.languages}.")
    read_only = ToolAnnotations(read_only_hint=True, open_world_hint=False)
    tool = server.tool(annotations=read_only)

    @contextlib.contextmanager
    def errors() -> Iterator[None]:
        """Of the present index: what a user can mend reaches the assistant."""
        try:
            with contextlib.suppress(EnvironmentTrouble):  # the old generation answers
                index.refresh()
            yield
        except (PipelineError, MediaError, OSError) as error:
            raise ToolError(str(error)) from error
        except KeyError as error:
            raise ToolError(f"there is no item {'/'.join(error.args)}: give corpus and item_id of a result") from error

    @tool
    def search(
        words: str = "",
        picture: str = "",
        k: int = 10,
        offset: int = 0,
        min_score: float | None = None,
        corpus: str | None = None,
        split: str | None = None,
        media_type: str | None = None,
        folder: str | None = None,
        camera: str | None = None,
        place: str | None = None,
        since: str | None = None,
        until: str | None = None,
        exclude: str = "",
    ) -> list[dict[str, Any]]:
        """Find pictures and videos by words in any language, the path of a picture on this machine, or both.

        `place` is a town, region or country in English; `since` and `until` are days, months or years, as 2024-07-31;
        `exclude` are words for what the results should not show. Where `fits` is false, unrelated words would have
        found that as well; `moment_s` is the second of a video that fits best.
        """
        with errors():
            like = Path(picture).expanduser() if picture else None
            filters = Filters(corpus, split, media_type, folder, camera, place, since, until)
            hits = index.search(
                words, k, picture=like, exclude=exclude, min_score=min_score, offset=offset, filters=filters
            )
            return [dataclasses.asdict(hit) for hit in hits]

    @tool
    def similar(corpus: str, item_id: str, k: int = 10) -> list[dict[str, Any]]:
        """Find what is most like an item."""
        with errors():
            return [dataclasses.asdict(hit) for hit in index.similar(corpus, item_id, k)]

    @server.tool(annotations=read_only, structured_output=False)
    def item(corpus: str, item_id: str) -> list[Any]:
        """What is known of an item, and its picture or the first frame of its video."""
        with errors():
            record, jpeg = index.record(corpus, item_id), io.BytesIO()
            index.picture(corpus, item_id, SIDE).save(jpeg, "JPEG")
            return [record, Image(data=jpeg.getvalue(), format="jpeg")]

    @tool
    def facets() -> dict[str, dict[str, int]]:
        """The values that `search` can be limited to, with how many items have each."""
        with errors():
            return index.facets

    return server


def parser() -> argparse.ArgumentParser:
    """The command line."""
    program = Parser("leccr mcp-server", description=__doc__.splitlines()[0], allow_abbrev=False)
    program.add_argument("folder", help="a folder of pictures that leccr find has indexed, or an index folder")
    return program


if __name__ == "__main__":
    sys.exit(run_program(main))

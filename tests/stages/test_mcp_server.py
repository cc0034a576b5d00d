"""Search for assistants, asked by the official client."""

import asyncio
import base64
import json
import sys

import pytest

from tests.conftest import ROOT, clean_environment
from tests.stages.indexed import write_indexed

mcp = pytest.importorskip("mcp")


def test_an_assistant_searches_looks_and_reads(tmp_path):
    write_indexed(tmp_path, 6)
    arguments = [str(ROOT / "leccr.py"), "mcp-server", str(tmp_path / "index")]
    environment = clean_environment(PYTHONPATH=str(ROOT))
    server = mcp.StdioServerParameters(command=sys.executable, args=arguments, env=environment, cwd=str(ROOT))

    async def ask():
        async with mcp.Client(mcp.client.stdio.stdio_client(server)) as client:

            async def call(tool, **given):
                return await client.call_tool(tool, given)

            tools = (await client.list_tools()).tools
            assert {tool.name for tool in tools} == {"search", "similar", "item", "facets"}
            assert all(tool.annotations.read_only_hint for tool in tools)
            hits = (await call("search", words="rot", k=3)).structured_content["result"]
            page = (await call("search", words="rot", k=2, offset=1)).structured_content["result"]
            assert page == hits[1:] and len(hits) == 3
            assert not (await call("search", words="rot", min_score=9)).structured_content["result"]
            names = {name: hits[0][name] for name in ("corpus", "item_id")}
            record, picture = (await call("item", **names)).content
            assert json.loads(record.text)["item_id"] == names["item_id"] and picture.mime_type == "image/jpeg"
            alike = (await call("similar", **names, k=9)).structured_content["result"]
            assert len(alike) == 5 and names["item_id"] not in {hit["item_id"] for hit in alike}
            (tmp_path / "query.jpg").write_bytes(base64.b64decode(picture.data))
            like = {"picture": str(tmp_path / "query.jpg"), "k": 3}
            like_hits = (await call("search", **like)).structured_content["result"]
            composed = (await call("search", words="rot", **like)).structured_content["result"]
            assert len({found[0]["score"] for found in (hits, like_hits, composed)}) == 3
            assert sum((await call("facets")).structured_content["split"].values()) == 6
            wrong = await call("item", corpus="photos", item_id="none")
            assert wrong.is_error and "photos/none" in wrong.content[0].text

    asyncio.run(ask())

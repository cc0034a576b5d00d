"""The scripted server: what other tests rely on and do not show themselves."""

import asyncio
import contextlib
import time

from tests.loopback import Loopback, answer_text, request_digest
from tests.pipeline.captioning.scripted import VIEW, ask_many, client_of, expected, media_of


def test_digests_are_as_written_down():
    """Worked out by hand with sha256sum: of "onetwo", of "Hi", and of "onetwoHi"."""
    assert answer_text([b"one", b"two"], "Hi") == "digest 25b6746d5172ed63 prompt 3639efcd08abb273."
    assert request_digest([b"one", b"two"], "Hi") == "9a22de739c45b12f05005b787c5e3aec046f657c70e87c4e3769263c8371ec64"


def test_slots_bound_what_is_served_at_once_and_a_client_that_leaves_frees_its_slot():
    async def leave(server):
        async with client_of(server) as client:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(client.ask(VIEW, "Gone.", media_of([])), 0.2)

    with Loopback(slots=2, latency_s=0.05) as server:
        began = time.monotonic()
        assert ask_many([server], 8) == expected(8)
        assert time.monotonic() - began >= 0.2
        assert list(server.stats()["seen"].values()) == [[1, 1]] * 8
        server.script(slots=1, latency_s=60.0)
        asyncio.run(leave(server))
        server.script(latency_s=0.0)
        assert ask_many([server], 1) == expected(1)

"""A viewer far away: what is sent takes time to arrive, and the session reckons with it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

from loadtests.viewer import Viewer
from orchestrator.rendering.tasks import end

WAY = 0.25
"""Seconds in each direction, as to the other side of the world by a mobile network."""
SENTENCE = "Hello there, I am a picture that is far away."


@contextlib.asynccontextmanager
async def far_away(url: str, seconds: float) -> AsyncIterator[str]:
    """A way to a server on which everything takes so long in each direction."""
    address = urlsplit(url)
    pumps: set[asyncio.Task[None]] = set()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(1000)

        async def deliver() -> None:
            while True:
                at, data = await under_way.get()
                await asyncio.sleep(at - loop.time())
                if not data:
                    writer.close()
                    return
                writer.write(data)

        delivering = asyncio.create_task(deliver())
        try:
            while data := await reader.read(65536):
                await under_way.put((loop.time() + seconds, data))
            await under_way.put((loop.time() + seconds, b""))
            await delivering
        finally:
            await end(delivering)

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection(address.hostname, address.port)
        for pump in (carry(reader, there[1]), carry(there[0], writer)):
            task = asyncio.create_task(pump)
            pumps.add(task)
            task.add_done_callback(pumps.discard)

    server = await asyncio.start_server(accept, "127.0.0.1")
    try:
        yield "http://127.0.0.1:{1}".format(*server.sockets[0].getsockname())
    finally:
        server.close()
        await end(*pumps)


async def test_no_speech_is_cut_off_and_the_picture_does_not_stand_still(stage) -> None:
    async with far_away(stage.url, WAY) as url, Viewer(url) as viewer:
        await viewer.until(lambda: viewer.position > 1.5)
        stalls = viewer.stalls
        for _ in range(2):
            turn = await viewer.begin("say", {"text": SENTENCE})
            performance = await viewer.performance(turn)
            await viewer.idle_again(turn)
            assert performance["frames_late"] == 0
        turn = await viewer.begin("say", {"text": SENTENCE})
        await viewer.until(lambda: viewer.of("transcript", turn))
        await asyncio.sleep(0.7 + WAY)
        begun = len(viewer.of("flush"))
        assert (await viewer.call("interrupt"))["ok"]
        await viewer.until(lambda: len(viewer.of("flush")) > begun)
        cut = viewer.position
        await viewer.until(lambda: viewer.position > cut + 1)
        print(f"stalls {viewer.stalls - stalls:.3f} s, late cuts {viewer.late_cuts}")  # noqa: T201
        assert not viewer.problems and not viewer.of("error")
        # A busy machine may hold one of them up.
        assert len(viewer.of("flush")) == 4 and len(viewer.late_cuts) <= 1
        assert viewer.stalls - stalls < 0.3

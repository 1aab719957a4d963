"""Three real Tritons with the demo's networks under live sessions: no frame is lost."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from loadtests.viewer import Viewer
from orchestrator.inference import EmbeddedTriton, TritonClient
from orchestrator.inference.schedule import PER_OWNER
from orchestrator.rendering.tasks import end

REPOSITORY = Path(__file__).parents[2] / "model_repository" / "cpu"
CALLED = ("whisper_encoder", "unet", "vae_decoder", "lipsync")
"""By live turns; the encoder of avatars would only take longer to load."""
TEXT = "A hum."
FPS = 15  # of the profile "classic", two frames a request
SPOKEN_SECONDS = 4
SPOKEN = SPOKEN_SECONDS * FPS


class Audience:
    """Viewers who are spoken to without an end, and what each turn reported."""

    def __init__(self, url: str, count: int) -> None:
        self.viewers = [Viewer(url, {"profile": "classic"}) for _ in range(count)]
        self.reports: list[dict[str, Any]] = []
        self.over = False

    async def watch(self, viewer: Viewer) -> None:
        async with viewer:
            while not self.over:
                turn = await viewer.begin("say", {"text": TEXT})
                self.reports.append(await viewer.performance(turn))
                await viewer.idle_again(turn)

    @contextlib.asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Inside they watch; at the end they see their last turns to the end."""
        tasks = [asyncio.create_task(self.watch(viewer)) for viewer in self.viewers]
        try:
            yield
            self.over = True
            await asyncio.wait_for(asyncio.gather(*tasks), 60)
        finally:
            await end(*tasks)


async def served(server: EmbeddedTriton) -> int:
    async with TritonClient(server.grpc_address) as client:
        return await requests(client)


async def requests(client: TritonClient) -> int:
    return (await client.statistics("unet")).requests


async def shares(clients: list[TritonClient], together: int) -> list[int]:
    """Requests that the server of each gets until they have got so many."""
    before = [await requests(client) for client in clients]
    found: list[int] = []

    async def enough() -> bool:
        after = [await requests(client) for client in clients]
        found[:] = [int(share) for share in np.subtract(after, before)]
        return sum(found) >= together

    await until(enough, 30)
    return found


def assert_even(shares: list[int], under_way: int) -> None:
    """Within a fifth, but for requests that are under way to one of them."""
    assert max(shares) <= 1.2 * min(shares) + under_way, shares


async def until(condition: Callable[[], Awaitable[object]], seconds: float) -> float:
    start = time.monotonic()
    while time.monotonic() - start < seconds:
        if await condition():
            return time.monotonic() - start
        await asyncio.sleep(0.1)
    raise AssertionError(f"not within {seconds} s")


@contextlib.asynccontextmanager
async def crawling(server: EmbeddedTriton) -> AsyncIterator[None]:
    """Let a server compute a quarter of the time."""
    assert server.pid is not None
    models = psutil.Process(server.pid).children(recursive=True)
    assert models

    async def stop_and_go() -> None:
        while True:
            for process in models:
                process.suspend()
            await asyncio.sleep(0.09)
            for process in models:
                process.resume()
            await asyncio.sleep(0.03)

    task = asyncio.create_task(stop_and_go())
    try:
        yield
    finally:
        await end(task)
        for process in models:
            process.resume()


@pytest.mark.triton
@pytest.mark.slow
async def test_one_killed_one_drained_one_slow_and_no_frame_is_lost(
    stage_over: Any, make_hum: Any, tmp_path: Path
) -> None:
    for name in CALLED:
        shutil.copytree(REPOSITORY / name, tmp_path / name)
    servers = [EmbeddedTriton(tmp_path, start_timeout=100, brief=True) for _ in range(3)]
    killed, drained, slow = servers
    try:
        await asyncio.gather(*(server.start() for server in servers))
        address = "ipv4:" + ",".join(server.grpc_address for server in servers)
        async with (
            TritonClient(address) as client,
            stage_over(client, max_talkers=4.0) as stage,
        ):
            stage.voice.sounds[TEXT] = make_hum(SPOKEN_SECONDS)
            audience = Audience(stage.url, 2)
            async with audience.watching():
                await until(lambda: everybody_served(servers), 20)
                async with contextlib.AsyncExitStack() as stack:
                    clients = [
                        await stack.enter_async_context(TritonClient(server.grpc_address))
                        for server in servers
                    ]
                    even = await shares(clients, 45)
                    async with crawling(slow):
                        limping = await shares(clients, 45)

                assert killed.pid is not None
                psutil.Process(killed.pid).kill()
                await asyncio.sleep(1)
                await killed.stop()
                await killed.restart()
                again = await until(lambda: served(killed), 30)
                await drained.stop()

            frames = sum(report["frames"] for report in audience.reports)
            late = sum(report["frames_late"] for report in audience.reports)
            print(  # noqa: T201
                f"{frames} frames, {late} late; requests {even}, with a slow server {limping}; "
                f"resent {dict(client.resent)}; traffic {again:.1f} s after the restart"
            )
            assert_even(even, 2)
            assert_even(limping, PER_OWNER * len(audience.viewers))
            assert client.resent["stopping"] + client.resent["unavailable"] > 0
            for viewer in audience.viewers:
                assert not viewer.problems and not viewer.of("error")
            # Each turn has all its frames, whatever happened to the servers meanwhile.
            assert {report["frames"] for report in audience.reports} == {SPOKEN}
            assert len(audience.reports) >= 6
            # Their own mouths too, but for what two cores cannot do for three servers.
            assert late < frames / 2
    finally:
        for server in servers:
            await server.stop()


async def everybody_served(servers: list[EmbeddedTriton]) -> bool:
    return all([await served(server) for server in servers])

"""Many Tritons behind one address: calls spread, failures go elsewhere, nobody is lost."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
from tritonclient.utils import InferenceServerException

from orchestrator.errors import UnavailableError
from orchestrator.inference import EmbeddedTriton, TritonClient
from orchestrator.inference.replicas import may_be_many, servers_fault
from orchestrator.telemetry import Telemetry


@pytest.fixture
def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize(
    ("address", "many"),
    [
        ("127.0.0.1:8001", False),
        ("localhost:8001", False),
        ("[::1]:8001", False),
        ("ipv4:10.0.0.1:8001", False),
        ("ipv4:10.0.0.1:8001,10.0.0.2:8001", True),
        ("triton-headless:8001", True),
        ("dns:///triton-headless.musetalk:8001", True),
    ],
)
def test_which_addresses_may_be_many(address: str, many: bool) -> None:
    assert may_be_many(address) is many


@pytest.mark.parametrize(
    ("status", "message", "fault"),
    [
        ("StatusCode.UNAVAILABLE", "failed to connect to all addresses", "unavailable"),
        ("StatusCode.CANCELLED", "CANCELLED", "stopping"),
        ("StatusCode.UNAVAILABLE", "Server is stopping, scheduler is shut down", "stopping"),
        ("StatusCode.INVALID_ARGUMENT", "unexpected shape", None),
        ("StatusCode.DEADLINE_EXCEEDED", "Deadline Exceeded", None),
        ("StatusCode.NOT_FOUND", "unknown model", None),
    ],
)
def test_which_failures_go_elsewhere(status: str, message: str, fault: str | None) -> None:
    assert servers_fault(InferenceServerException(message, status)) == fault
    assert servers_fault(asyncio.TimeoutError()) is None


async def test_a_call_ends_when_all_are_away_or_its_time_is_up(free_port: int) -> None:
    address = f"ipv4:127.0.0.1:{free_port},127.0.0.2:{free_port}"
    x = np.zeros((1, 3), np.float16)
    async with TritonClient(address) as client:
        telemetry = Telemetry()
        telemetry.watch(client)
        for timeout in (0.3, 10.0):
            start = time.monotonic()
            with pytest.raises(UnavailableError):
                await client.infer("scale", {"x": x}, timeout=timeout)
            assert time.monotonic() - start < timeout
        text = telemetry.render().decode()
        assert client.resent["unavailable"] > 5
        count = (
            f'musetalk_triton_resent_total{{reason="unavailable"}} {client.resent["unavailable"]}'
        )
        assert count in text
        states = [line for line in text.splitlines() if line.startswith("musetalk_triton_channel{")]
        assert sum(line.endswith(" 1.0") for line in states) == 1
    assert client.state == "shutdown"


class Load:
    """Live sessions: each asks for four frames, shows them, asks for the next."""

    def __init__(self, client: TritonClient) -> None:
        self._client = client
        self.frames = 0
        self.slowest = 0.0
        self.failures: list[Exception] = []

    async def session(self, number: int) -> None:
        latents = np.full((4, 8, 32, 32), number, np.float16)
        audio = np.zeros((4, 50, 384), np.float16)
        while True:
            start = time.monotonic()
            try:
                faces = await self._client.lipsync(latents, audio, timeout=8.0)
            except Exception as error:  # noqa: BLE001 -- every failure is a lost frame
                self.failures.append(error)
                continue
            assert faces.shape == (4, 256, 256, 3)
            self.frames += 4
            self.slowest = max(self.slowest, time.monotonic() - start)
            await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def under_load(client: TritonClient, sessions: int = 4) -> AsyncIterator[Load]:
    load = Load(client)
    tasks = [asyncio.create_task(load.session(number)) for number in range(sessions)]
    try:
        yield load
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def served(server: EmbeddedTriton) -> int:
    async with TritonClient(server.grpc_address) as client:
        return (await client.statistics("unet")).requests


async def until(condition: Callable[[], object], seconds: float) -> float:
    start = time.monotonic()
    while time.monotonic() - start < seconds:
        if await condition():  # type: ignore[misc]
            return time.monotonic() - start
        await asyncio.sleep(0.2)
    raise AssertionError(f"not within {seconds} s")


async def crawl(server: EmbeddedTriton) -> None:
    """Let a server compute a quarter of the time."""
    assert server.pid is not None
    models = psutil.Process(server.pid).children(recursive=True)
    try:
        while True:
            for process in models:
                process.suspend()
            await asyncio.sleep(0.15)
            for process in models:
                process.resume()
            await asyncio.sleep(0.05)
    finally:
        for process in models:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()


@pytest.mark.triton
@pytest.mark.slow
async def test_three_servers_killed_drained_slow(repository: Path) -> None:
    servers = [EmbeddedTriton(repository, start_timeout=100) for _ in range(3)]
    killed, drained, slow = servers
    try:
        for server in servers:
            await server.start()
        address = "ipv4:" + ",".join(server.grpc_address for server in servers)
        async with TritonClient(address) as client, under_load(client) as load:
            await until(lambda: _all_serve(servers), 30)
            before = [await served(server) for server in servers]
            await asyncio.sleep(4)
            after = [await served(server) for server in servers]
            shares = np.subtract(after, before)
            assert shares.min() > 5
            assert shares.max() <= 1.2 * shares.min() + 2, shares

            crawling = asyncio.create_task(crawl(slow))
            frames = load.frames
            await asyncio.sleep(3)
            assert load.frames > frames
            crawling.cancel()
            await asyncio.gather(crawling, return_exceptions=True)

            assert killed.pid is not None
            psutil.Process(killed.pid).kill()
            await asyncio.sleep(1)
            frames = load.frames
            await killed.stop()
            await killed.restart()
            again = await until(lambda: served(killed), 30)

            frames_before = load.frames
            await drained.stop()
            await asyncio.sleep(1)
            assert load.frames > frames_before > frames
            print(f"frames {load.frames}, shares {shares}, slowest {load.slowest:.2f} s,")  # noqa: T201
            print(f"resent {dict(client.resent)}, traffic again after {again:.1f} s")  # noqa: T201
            assert not load.failures, load.failures[:3]
            assert client.state == "ready"
    finally:
        for server in servers:
            await server.stop()


async def _all_serve(servers: list[EmbeddedTriton]) -> bool:
    return all([await served(server) for server in servers])

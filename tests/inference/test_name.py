"""One name, several addresses: a headless service, asked of a real name server as it changes."""

from __future__ import annotations

import asyncio
import struct
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from orchestrator.inference import TritonClient
from orchestrator.inference import client as client_module
from orchestrator.inference.distribution import find_distribution
from orchestrator.inference.ports import Ports
from orchestrator.inference.replicas import CHANNEL_ARGUMENTS
from orchestrator.rendering.tasks import end

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "docker" / "serve-triton.sh"
NAME = "triton-headless.musetalk.svc"
X = np.ones((1, 3), np.float16)


class NameServer(asyncio.DatagramProtocol):
    """Answers every name with the addresses of the moment, as cluster DNS does a headless one.

    Attributes:
        addresses: IPv4.
        asked: names that were asked for, IPv4 only.
    """

    def __init__(self) -> None:
        self.addresses: list[str] = []
        self.asked: list[str] = []
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        end, labels = 12, []
        while data[end]:
            labels.append(data[end + 1 : end + 1 + data[end]].decode())
            end += 1 + data[end]
        end += 1
        (kind,) = struct.unpack_from("!H", data, end)
        a_record = kind == 1
        if a_record:
            self.asked.append(".".join(labels))
        found = self.addresses if a_record else []
        answer = struct.pack("!2sHHHHH", data[:2], 0x8580, 1, len(found), 0, 0)
        answer += data[12 : end + 4]
        for address in found:
            answer += struct.pack("!HHHIH", 0xC00C, 1, 1, 0, 4)
            answer += bytes(int(part) for part in address.split("."))
        self._transport.sendto(answer, addr)


class Servicer(service_pb2_grpc.GRPCInferenceServiceServicer):
    """One Triton; counts what it is asked."""

    def __init__(self, counts: Counter[str], address: str) -> None:
        self._counts, self._address = counts, address

    async def ModelInfer(  # noqa: N802 -- the protocol's name
        self, request: service_pb2.ModelInferRequest, _: grpc.aio.ServicerContext
    ) -> service_pb2.ModelInferResponse:
        self._counts[self._address] += 1
        return service_pb2.ModelInferResponse(model_name=request.model_name)


class Cluster:
    """Servers on addresses of the loopback, at one port, and the name server that lists them."""

    def __init__(self, name_server: NameServer, dns_port: int) -> None:
        self.dns = name_server
        self.served: Counter[str] = Counter()
        self.port = 0
        self._dns_port = dns_port
        self._servers: dict[str, grpc.aio.Server] = {}

    @property
    def address(self) -> str:
        return f"dns://127.0.0.1:{self._dns_port}/{NAME}:{self.port}"

    async def start(self, address: str, *, age_ms: int = 300_000) -> None:
        server = grpc.aio.server(
            options=[
                ("grpc.so_reuseport", 0),
                ("grpc.max_connection_age_ms", age_ms),
                ("grpc.max_connection_age_grace_ms", 5000),
                ("grpc.http2.max_ping_strikes", 0),  # tests ping more often than any client
            ]
        )
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(
            Servicer(self.served, address), server
        )
        self.port = server.add_insecure_port(f"{address}:{self.port}")
        await server.start()
        self._servers[address] = server

    async def stop(self) -> None:
        for server in self._servers.values():
            await server.stop(None)


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(
        NameServer, local_addr=("127.0.0.1", 0)
    )
    made = Cluster(protocol, transport.get_extra_info("sockname")[1])
    yield made
    await made.stop()
    transport.close()


@asynccontextmanager
async def called_all_the_time(
    client: TritonClient, model: str = "unet"
) -> AsyncIterator[list[Exception]]:
    """Sessions that call again and again; gives what failed."""
    failed: list[Exception] = []

    async def call() -> None:
        while True:
            try:
                await client.infer(model, {"x": X}, timeout=5.0)
            except Exception as error:  # noqa: BLE001 -- every failure is a lost call
                failed.append(error)
            await asyncio.sleep(0.01)

    tasks = [asyncio.create_task(call()) for _ in range(3)]
    try:
        yield failed
    finally:
        await end(*tasks)


async def until(condition: Callable[[], Awaitable[bool]], seconds: float) -> None:
    limit = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < limit, f"not within {seconds} s"


async def shares(cluster: Cluster, seconds: float = 0.5) -> dict[str, int]:
    """Calls of some time, by server."""
    cluster.served.clear()
    await asyncio.sleep(seconds)
    return dict(cluster.served)


def quickly(monkeypatch: pytest.MonkeyPatch, **milliseconds: int) -> None:
    """The client's own arguments, with some times shorter: a test does not wait for minutes."""
    changed = {f"grpc.{name.replace('__', '.')}": value for name, value in milliseconds.items()}
    assert set(changed) <= {name for name, _ in CHANNEL_ARGUMENTS}
    arguments = [(name, changed.get(name, value)) for name, value in CHANNEL_ARGUMENTS]
    monkeypatch.setattr(client_module, "CHANNEL_ARGUMENTS", arguments)


async def test_calls_go_to_all_addresses_of_the_name_in_turn(cluster: Cluster) -> None:
    cluster.dns.addresses = ["127.0.0.1", "127.0.0.2", "127.0.0.3"]
    for address in cluster.dns.addresses:
        await cluster.start(address)
    async with TritonClient(cluster.address) as client:
        await until(lambda: all_of(cluster, {"127.0.0.1", "127.0.0.2", "127.0.0.3"}, client), 10)
        cluster.served.clear()
        for _ in range(60):
            await client.infer("unet", {"x": X})
    assert set(cluster.dns.asked) == {NAME}
    assert cluster.served == dict.fromkeys(cluster.dns.addresses, 20)


async def all_of(cluster: Cluster, wanted: set[str], client: TritonClient) -> bool:
    await client.infer("unet", {"x": X})
    return set(cluster.served) == wanted


async def test_a_new_replica_gets_its_share_and_one_that_is_gone_gets_nothing(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name is asked again when a connection is of age; no call is lost at that."""
    quickly(monkeypatch, dns_min_time_between_resolutions_ms=200)
    old, new = ["127.0.0.1", "127.0.0.2"], ["127.0.0.2", "127.0.0.3"]
    cluster.dns.addresses = old
    for address in {*old, *new}:
        await cluster.start(address, age_ms=700)

    async def served_by(wanted: list[str]) -> bool:
        return set(await shares(cluster)) == set(wanted)

    async with TritonClient(cluster.address) as client, called_all_the_time(client) as failed:
        await until(lambda: served_by(old), 10)
        cluster.dns.addresses = new
        await until(lambda: served_by(new), 15)
        found = await shares(cluster, 1.0)
        assert not failed, failed[:3]
    assert max(found.values()) <= 1.2 * min(found.values()) + 2, found


@asynccontextmanager
async def real_triton(repository: Path, folder: Path, *options: str) -> AsyncIterator[int]:
    """A tritonserver as docker/serve-triton.sh starts it; its gRPC port."""
    found = find_distribution()
    (folder / "bin").mkdir()
    (folder / "bin" / "tritonserver").symlink_to(found.binary)
    environment = found.environment()
    ports = Ports(0, 0, 0).resolve()
    process = await asyncio.create_subprocess_exec(
        *(str(SCRIPT), str(repository), f"--backend-directory={found.lay_out_backends(folder)}"),
        f"--backend-config=python,shm-region-prefix-name={folder.parent.name}-{folder.name}",
        *(f"--{kind}-address=127.0.0.1" for kind in ("grpc", "http", "metrics")),
        *(f"--grpc-port={ports.grpc}", f"--http-port={ports.http}"),
        *(f"--metrics-port={ports.metrics}", *options),
        env={**environment, "PATH": f"{folder / 'bin'}:{environment['PATH']}"},
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with TritonClient(f"127.0.0.1:{ports.grpc}") as client:

            async def ready() -> bool:
                assert process.returncode is None
                await asyncio.sleep(0.1)
                return await client.ready()

            await until(ready, 60)
        yield ports.grpc
    finally:
        if process.returncode is None:
            process.terminate()
        try:
            assert await asyncio.wait_for(process.wait(), 40) == 0
        except asyncio.TimeoutError:
            process.kill()
            raise


@pytest.mark.triton
async def test_a_real_server_ends_old_connections_and_no_call_is_lost(
    cluster: Cluster,
    one_model: Callable[[], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    quickly(monkeypatch, dns_min_time_between_resolutions_ms=200)
    cluster.dns.addresses = ["127.0.0.1"]
    age = "--grpc-max-connection-age=700"
    async with (
        real_triton(one_model(), tmp_path, age) as cluster.port,
        TritonClient(cluster.address) as client,
    ):
        async with called_all_the_time(client, "scale") as failed:

            async def asked_again() -> bool:
                await asyncio.sleep(0.1)
                return len(cluster.dns.asked) > 3

            await until(asked_again, 20)
            assert not failed, failed[:3]
        assert (await client.statistics("scale")).requests > 50


async def test_a_machine_that_vanishes_is_left_out(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No connection ends, no packet comes: only the keep-alive tells."""
    quickly(monkeypatch, keepalive_time_ms=400, http2__ping_timeout_ms=400)
    await cluster.start("127.0.0.1")
    cable = Cable(cluster.port)
    server = await asyncio.start_server(cable.connected, "127.0.0.2", cluster.port)
    cluster.dns.addresses = ["127.0.0.1", "127.0.0.2"]
    try:
        async with TritonClient(cluster.address) as client:
            await until(lambda: through(cable, client), 10)
            cable.cut = True
            async with called_all_the_time(client) as failed:
                await until(lambda: resent(client), 15)
                assert not failed, failed[:3]
                cluster.served.clear()
                await asyncio.sleep(1.0)
                assert cluster.served["127.0.0.1"] > 20
                assert not failed, failed[:3]
    finally:
        server.close()
        await cable.close()


async def through(cable: Cable, client: TritonClient) -> bool:
    await client.infer("unet", {"x": X})
    return cable.carried > 0


async def resent(client: TritonClient) -> bool:
    await asyncio.sleep(0.1)
    return client.resent["unavailable"] > 0


class Cable:
    """To the server at 127.0.0.1 from another address; cut, it carries nothing and says nothing."""

    def __init__(self, port: int) -> None:
        self.cut = False
        self.carried = 0
        self._port = port
        self._tasks: set[asyncio.Task[None]] = set()

    async def connected(self, near: asyncio.StreamReader, to_near: asyncio.StreamWriter) -> None:
        if self.cut:
            await asyncio.sleep(60)
        far, to_far = await asyncio.open_connection("127.0.0.1", self._port)
        for source, sink in ((near, to_far), (far, to_near)):
            task = asyncio.create_task(self._carry(source, sink))
            self._tasks.add(task)

    async def _carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            if not self.cut:
                self.carried += len(data)
                sink.write(data)
        sink.close()

    async def close(self) -> None:
        await end(*self._tasks)

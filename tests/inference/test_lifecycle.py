"""Starting, dying and stopping: one clear line in seconds, and nothing left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from orchestrator.errors import (
    InferenceError,
    RepositoryError,
    ServerDiedError,
    SetupError,
    UnavailableError,
)
from orchestrator.inference import EmbeddedTriton, TritonClient, connect, connection
from orchestrator.inference.scratch import PREFIX
from orchestrator.settings import Settings

pytestmark = pytest.mark.triton

Make = Callable[[], Path]
X = np.ones((1, 3), np.float16)


@pytest.fixture(autouse=True)
def own_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Scratch folders of this test alone, so that what is left over is its own."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield folder
    tempfile.tempdir = None


def family(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def regions(folder: Path) -> list[str]:
    """Shared memory of the servers whose scratch folders lie here."""
    names = [path.name for path in folder.iterdir() if path.name.startswith(PREFIX)]
    assert names, "no server has its scratch folder here"
    return [
        region.name for region in Path("/dev/shm").iterdir() if region.name.startswith(tuple(names))
    ]


def is_empty(folder: Path) -> bool:
    return not any(folder.iterdir())


def none_left(names: list[str]) -> bool:
    return bool(names) and not any((Path("/dev/shm") / name).exists() for name in names)


def all_gone(processes: list[psutil.Process], seconds: float = 15) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    return not alive


def is_free(address: str) -> bool:
    host, port = address.split(":")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
        except OSError:
            return False
    return True


async def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.05)


async def test_a_stopped_server_leaves_nothing(one_model: Make, own_temporary_folder: Path) -> None:
    server = EmbeddedTriton(one_model())
    async with server, TritonClient(server.grpc_address) as client:
        assert server.pid is not None
        processes = [*psutil.Process(server.pid).parents()[:1], *family(server.pid)]
        assert len(processes) >= 3  # keeper, server, stub
        listening = {
            opened.laddr.ip
            for process in family(server.pid)
            for opened in process.net_connections("tcp")
            if opened.status == psutil.CONN_LISTEN
        }
        assert {address.removeprefix("::ffff:") for address in listening} == {"127.0.0.1"}
        shared = regions(own_temporary_folder)
        await client.infer("scale", {"x": X})
    assert all_gone(processes, 1)
    assert none_left(shared)
    assert is_empty(own_temporary_folder)
    for address in (server.grpc_address, server.http_address, server.metrics_address):
        assert is_free(address)


async def test_a_stopping_server_answers_what_it_has_accepted(slow_repository: Path) -> None:
    x = np.zeros((8, 32, 64, 64), np.float32)
    async with (
        EmbeddedTriton(slow_repository) as server,
        TritonClient(server.grpc_address) as client,
    ):
        calls = [asyncio.create_task(client.infer("slow", {"x": x})) for _ in range(6)]
        while await asyncio.to_thread(pending, server.metrics_address, "slow") < 2:
            assert not all(call.done() for call in calls)
        await server.stop()
        results = await asyncio.gather(*calls, return_exceptions=True)
    answers = [result for result in results if isinstance(result, dict)]
    assert len(answers) >= 2
    assert all(answer["y"].shape == x.shape for answer in answers)
    # What was still on its way may be tried elsewhere.
    assert all(isinstance(result, (dict, UnavailableError)) for result in results)


def pending(metrics_address: str, model: str) -> int:
    """Requests that the server has accepted and not begun."""
    with urllib.request.urlopen(f"http://{metrics_address}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    found = re.search(rf'nv_inference_pending_request_count{{model="{model}".*}} (\d+)', text)
    return int(found[1]) if found else 0


async def test_a_killed_server_is_noticed_and_said(
    one_model: Make, own_temporary_folder: Path
) -> None:
    async with EmbeddedTriton(one_model()) as server:
        assert server.pid is not None
        processes = family(server.pid)
        shared = regions(own_temporary_folder)
        os.kill(server.pid, signal.SIGKILL)
        with pytest.raises(ServerDiedError, match="killed by SIGKILL"):
            await asyncio.wait_for(server.wait(), 20)
        assert all_gone(processes)
        assert none_left(shared)
    assert is_empty(own_temporary_folder)


async def test_connect_starts_a_killed_server_again(
    slow_repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "MAX_RESTARTS", 1)
    settings = Settings(repository=slow_repository, triton=None)
    async with connect(settings) as inference:
        (server_pid,) = tritonservers(slow_repository)
        x = np.zeros((8, 32, 64, 64), np.float32)
        calls = [asyncio.create_task(inference.infer("slow", {"x": x})) for _ in range(6)]
        await asyncio.sleep(0.2)
        os.kill(server_pid, signal.SIGKILL)
        killed = time.monotonic()
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert time.monotonic() - killed < 10
        assert any(isinstance(result, UnavailableError) for result in results)
        assert all(isinstance(result, (dict, UnavailableError)) for result in results)

        async def answers() -> None:
            while True:
                with contextlib.suppress(InferenceError):
                    np.testing.assert_array_equal(
                        (await inference.infer("scale", {"x": X}))["y"], X * 2
                    )
                    return
                await asyncio.sleep(0.1)

        await asyncio.wait_for(answers(), 30)

        # One restart was allowed: the next death is final, and every call says so.
        os.kill(tritonservers(slow_repository)[0], signal.SIGKILL)

        async def final_answer() -> None:
            while True:
                with contextlib.suppress(InferenceError):
                    await inference.infer("scale", {"x": X})
                await asyncio.sleep(0.1)

        with pytest.raises(ServerDiedError, match="died 2 times"):
            await asyncio.wait_for(final_answer(), 20)
        assert not await inference.ready()
    assert tritonservers(slow_repository) == []


def tritonservers(marker: Path) -> list[int]:
    """Servers whose repository lies under a folder."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            command = process.cmdline()
            if command and command[0].endswith("tritonserver") and str(marker) in " ".join(command):
                found.append(process.pid)
    return found


async def test_the_death_of_one_model_is_the_death_of_the_server(
    slow_repository: Path, own_temporary_folder: Path
) -> None:
    async with EmbeddedTriton(slow_repository) as server:
        assert server.pid is not None
        processes = family(server.pid)
        shared = regions(own_temporary_folder)
        stub = next(p for p in processes if any("slow_0_0" in word for word in p.cmdline()))
        stub.kill()
        with pytest.raises(ServerDiedError, match="process of model slow ended"):
            await asyncio.wait_for(server.wait(), 20)
        stopping = time.monotonic()
    # Not drained: Triton would wait for the model until its time-out.
    assert time.monotonic() - stopping < 9
    assert all_gone(processes, 1)
    assert none_left(shared)


async def test_connect_says_when_nobody_answers() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        with pytest.raises(UnavailableError, match=address):
            async with connect(Settings(triton=address)):
                pytest.fail("there is no such server")


async def test_a_missing_model_file_is_named(one_model: Make, own_temporary_folder: Path) -> None:
    repository = one_model()
    (repository / "scale" / "1" / "model.onnx").unlink()
    server = EmbeddedTriton(repository)
    with pytest.raises(RepositoryError, match=r"scale/1/model\.onnx is missing") as caught:
        await server.start()
    assert "\n" not in str(caught.value)
    assert is_empty(own_temporary_folder)


async def test_a_corrupt_model_file_is_named(one_model: Make) -> None:
    repository = one_model()
    path = repository / "scale" / "1" / "model.onnx"
    path.write_bytes(path.read_bytes()[:40] + os.urandom(100))
    with pytest.raises(RepositoryError, match=r"scale/1/model\.onnx cannot be loaded") as caught:
        await EmbeddedTriton(repository).start()
    assert "\n" not in str(caught.value)
    assert tritonservers(repository) == []


async def test_a_config_that_names_other_tensors_is_refused(one_model: Make) -> None:
    repository = one_model()
    config = repository / "scale" / "config.pbtxt"
    config.write_text(config.read_text().replace('name: "y"', 'name: "z"'))
    with pytest.raises(RepositoryError, match=r"has the outputs \['y'\].*names \['z'\]"):
        await EmbeddedTriton(repository).start()


async def test_a_config_that_cannot_be_read_is_named(one_model: Make) -> None:
    repository = one_model()
    (repository / "scale" / "config.pbtxt").write_text("name: { nonsense")
    with pytest.raises(RepositoryError, match=r"scale/config\.pbtxt"):
        await EmbeddedTriton(repository).start()


async def test_a_repository_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match="is not a folder"):
        await EmbeddedTriton(tmp_path / "nowhere").start()
    with pytest.raises(RepositoryError, match="holds no model"):
        await EmbeddedTriton(tmp_path).start()


@pytest.mark.parametrize("which", ["grpc_port", "http_port", "metrics_port"])
async def test_a_taken_port_is_said_before_anything_starts(one_model: Make, which: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SetupError, match=f"port {port} .*in use"):
            await EmbeddedTriton(one_model(), **{which: port}).start()


async def test_a_free_port_that_is_taken_at_the_last_moment_is_replaced(
    one_model: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    from orchestrator.inference.ports import Ports

    resolve = Ports.resolve
    tries = []

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()

        def unlucky(self: Ports) -> Ports:
            found = resolve(self)
            tries.append(found)
            if len(tries) == 1:
                return Ports(taken.getsockname()[1], found.http, found.metrics)
            return found

        monkeypatch.setattr(Ports, "resolve", unlucky)
        async with (
            EmbeddedTriton(one_model()) as server,
            TritonClient(server.grpc_address) as client,
        ):
            await client.infer("scale", {"x": X})
    assert len(tries) == 2


async def test_a_cancelled_start_leaves_nothing(
    one_model: Make, own_temporary_folder: Path
) -> None:
    repository = one_model()
    start = asyncio.create_task(EmbeddedTriton(repository).start())
    await until(lambda: bool(tritonservers(repository)))
    start.cancel()
    cancelled = time.monotonic()
    with pytest.raises(asyncio.CancelledError):
        await start
    # It was loading: there is nothing to drain.
    assert time.monotonic() - cancelled < 8
    assert tritonservers(repository) == []
    assert is_empty(own_temporary_folder)


PROGRAM = """
import sys
from pathlib import Path
from orchestrator.inference import run_triton
sys.exit(run_triton(Path(sys.argv[1]), 0, 0, 0))
"""


@contextlib.contextmanager
def command(repository: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """``musetalk triton`` in a process of its own, ready; with its first line."""
    root = Path(__file__).resolve().parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(repository)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=root,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        yield process, process.stdout.readline()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_prints_its_addresses_and_stops_on_a_signal(
    one_model: Make, own_temporary_folder: Path, number: int
) -> None:
    with command(one_model()) as (process, line):
        addresses = re.findall(r"127\.0\.0\.1:\d+", line)
        assert len(addresses) == 3, line
        processes = family(process.pid)
        shared = regions(own_temporary_folder)
        # As a terminal does: to the whole process group.
        os.killpg(process.pid, number)
        assert process.wait(20) == 0
        assert all_gone(processes, 1)
    assert none_left(shared)
    assert is_empty(own_temporary_folder)
    assert all(is_free(address) for address in addresses)


def test_killing_the_command_ends_the_server_too(
    one_model: Make, own_temporary_folder: Path
) -> None:
    with command(one_model()) as (process, _):
        processes = family(process.pid)
        assert len(processes) >= 4  # command, keeper, server, stub
        shared = regions(own_temporary_folder)
        process.kill()
        process.wait()
        assert all_gone(processes)
    assert none_left(shared)
    assert is_empty(own_temporary_folder)


def test_killing_the_keeper_ends_the_server_too(
    one_model: Make, own_temporary_folder: Path
) -> None:
    with command(one_model()) as (process, _):
        processes = family(process.pid)
        shared = regions(own_temporary_folder)
        keeper = next(p for p in processes if any("keeper.py" in word for word in p.cmdline()))
        keeper.kill()
        assert process.wait(20) == 1
        assert all_gone(processes)
    assert none_left(shared)
    assert is_empty(own_temporary_folder)

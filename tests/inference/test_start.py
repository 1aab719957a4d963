"""A server that cannot be started says why in one line, and leaves nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest

from orchestrator.errors import RepositoryError, ServerDiedError, SetupError
from orchestrator.inference import EmbeddedTriton, TritonClient
from orchestrator.settings import ROOT
from tests.inference.processes import family, is_empty, tritonservers, until

pytestmark = [pytest.mark.triton, pytest.mark.usefixtures("own_temporary_folder")]

Make = Callable[[], Path]
X = np.ones((1, 3), np.float16)


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


@pytest.mark.parametrize("crashes", [1, 2])
async def test_a_crash_on_the_way_is_forgiven_once(one_model: Make, crashes: int) -> None:
    repository = one_model()
    server = EmbeddedTriton(repository)
    start = asyncio.create_task(server.start())
    seen: list[int] = []
    try:
        for _ in range(crashes):
            await until(lambda: bool(set(tritonservers(repository)) - set(seen)))
            (pid,) = set(tritonservers(repository)) - set(seen)
            seen.append(pid)
            os.kill(pid, signal.SIGSEGV)
        if crashes == 2:
            with pytest.raises(ServerDiedError, match="killed by SIGSEGV"):
                await start
            assert tritonservers(repository) == []
        else:
            await start
            async with TritonClient(server.grpc_address) as client:
                await client.infer("scale", {"x": X})
    finally:
        await server.stop()


async def test_a_model_that_stood_still_while_it_was_loaded_is_loaded_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Triton would wait for it until its time-out, or abort."""
    repository = tmp_path / "repository"
    shutil.copytree(ROOT / "model_repository" / "cpu" / "unet", repository / "unet")
    server = EmbeddedTriton(repository)
    start = asyncio.create_task(server.start())
    try:
        await until(lambda: any(stubs(repository)))
        (stub,) = stubs(repository)
        await asyncio.sleep(1.0)  # it is loading
        stub.suspend()
        await asyncio.sleep(3)
        stub.resume()
        await asyncio.wait_for(start, 60)
        async with TritonClient(server.grpc_address) as client:
            assert await client.has_model("unet")
    finally:
        await server.stop()
    assert "starting tritonserver again" in caplog.text


def stubs(repository: Path) -> list[psutil.Process]:
    with contextlib.suppress(psutil.Error):
        return [
            process
            for pid in tritonservers(repository)
            for process in family(pid)[1:]
            if "python_backend_stub" in process.cmdline()[0]
        ]
    return []


async def test_without_shared_memory_it_says_so(one_model: Make) -> None:
    small = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    mount = "mount -t tmpfs -o size=512k tmpfs /dev/shm"
    if subprocess.run([*small, mount], capture_output=True, check=False).returncode:  # noqa: ASYNC221
        pytest.skip("no file system may be mounted here")
    command = (
        f"{mount} && exec {sys.executable} -m orchestrator.cli triton --repository {one_model()}"
    )
    process = await asyncio.create_subprocess_exec(
        *small, command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    _, told = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 1
    last = told.decode().splitlines()[-1]
    assert "/dev/shm has none left" in last and "--shm-size" in last

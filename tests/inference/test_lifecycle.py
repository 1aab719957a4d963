"""Stopping and dying: one clear line in seconds, and nothing left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest

from orchestrator.errors import InferenceError, ServerDiedError, UnavailableError
from orchestrator.inference import EmbeddedTriton, TritonClient, connect, connection
from orchestrator.settings import Settings
from tests.inference.processes import (
    all_gone,
    family,
    is_empty,
    is_free,
    none_left,
    regions,
    tritonservers,
    until,
)

pytestmark = [pytest.mark.triton, pytest.mark.usefixtures("own_temporary_folder")]

Make = Callable[[], Path]
X = np.ones((1, 3), np.float16)


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


@pytest.mark.parametrize(("brief", "said"), [(False, "2, 4"), (True, "none")])
async def test_a_brief_server_compiles_less(one_model: Make, brief: bool, said: str) -> None:
    repository = one_model()
    with (repository / "scale" / "config.pbtxt").open("a") as config:
        config.write('parameters { key: "batches" value { string_value: "[2, 4]" } }\n')
    lines: list[str] = []
    async with (
        EmbeddedTriton(repository, brief=brief, log=lambda line: lines.append(line.text)) as server,
        TritonClient(server.grpc_address) as client,
    ):
        x = np.ones((4, 3), np.float16)
        np.testing.assert_array_equal((await client.infer("scale", {"x": x}))["y"], x * 2)
        await until(lambda: any("computes in" in line for line in lines))
    (line,) = [line for line in lines if "computes in" in line]
    assert line.endswith(f"with a model of their own for {said}")


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
        os.kill(server_pid, signal.SIGSTOP)  # a fast machine would have answered all of them
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


async def test_a_server_is_replaced_when_a_model_stood_still(
    slow_repository: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Triton would go on with memory that the model still writes to, until one of them crashes."""
    async with connect(Settings(repository=slow_repository, triton=None)) as inference:
        (first,) = tritonservers(slow_repository)
        stub = next(p for p in family(first) if any("slow_0_0" in word for word in p.cmdline()))
        stub.suspend()
        x = np.zeros((8, 32, 64, 64), np.float32)
        with pytest.raises(UnavailableError, match="is not healthy"):
            await asyncio.wait_for(inference.infer("slow", {"x": x}), 20)

        async def answers() -> None:
            while True:
                with contextlib.suppress(InferenceError):
                    await inference.infer("slow", {"x": x})
                    return
                await asyncio.sleep(0.1)

        await asyncio.wait_for(answers(), 30)
        assert tritonservers(slow_repository) != [first]
    assert "model slow stood still" in caplog.text


async def test_connect_says_when_nobody_answers() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        with pytest.raises(UnavailableError, match=address):
            async with connect(Settings(triton=address)):
                pytest.fail("there is no such server")

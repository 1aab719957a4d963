"""Many Tritons behind one address: which may be many, which failures go elsewhere."""

from __future__ import annotations

import asyncio
import time

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from loadtests.ports import free_port
from orchestrator.errors import UnavailableError
from orchestrator.inference import TritonClient
from orchestrator.inference.replicas import may_be_many, servers_fault
from orchestrator.telemetry import Telemetry


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


async def test_a_call_ends_when_all_are_away_or_its_time_is_up() -> None:
    port = free_port()
    address = f"ipv4:127.0.0.1:{port},127.0.0.2:{port}"
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

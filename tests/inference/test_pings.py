"""A client that is idle pings its server, which must not take that for an attack."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from orchestrator.inference import EmbeddedTriton
from orchestrator.inference.distribution import Distribution
from orchestrator.inference.replicas import CHANNEL_ARGUMENTS

ROOT = Path(__file__).parents[2]
ALLOWED = "--grpc-http2-min-recv-ping-interval-without-data="
WHILE_IDLE = "--grpc-keepalive-permit-without-calls=true"


@pytest.mark.triton
@pytest.mark.parametrize("permitted", [True, False])
async def test_an_idle_client_keeps_its_connection(
    permitted: bool, one_model: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything a hundred times faster; without the permission the server hangs up."""
    ours = Distribution.command

    def faster(*args: object, **options: object) -> list[str]:
        command = [f"{ALLOWED}100" if ALLOWED in word else word for word in ours(*args, **options)]  # type: ignore[arg-type]
        return command if permitted else [word for word in command if word != WHILE_IDLE]

    monkeypatch.setattr(Distribution, "command", faster)
    pinging = {**dict(CHANNEL_ARGUMENTS), "grpc.keepalive_time_ms": 300}
    async with (
        EmbeddedTriton(one_model()) as server,
        grpc.aio.insecure_channel(server.grpc_address, list(pinging.items())) as channel,
    ):
        await asyncio.wait_for(channel.channel_ready(), 10)
        left = channel.wait_for_state_change(grpc.ChannelConnectivity.READY)
        if permitted:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(left, 6)
        else:
            await asyncio.wait_for(left, 20)


@pytest.mark.parametrize(
    "file", ["docker/serve-triton.sh", "orchestrator/inference/distribution.py"]
)
def test_both_servers_allow_as_many_as_clients_send(file: str) -> None:
    text = (ROOT / file).read_text()
    assert WHILE_IDLE in text
    (line,) = [line for line in text.splitlines() if ALLOWED in line]
    allowed = int("".join(c for c in line.split(ALLOWED)[1] if c.isdigit()))
    assert allowed <= int(dict(CHANNEL_ARGUMENTS)["grpc.keepalive_time_ms"])

"""Ports on loopback for the embedded server."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from dataclasses import dataclass

from orchestrator.errors import SetupError

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Ports:
    """The three ports of one server on loopback."""

    grpc: int
    http: int
    metrics: int

    def resolve(self) -> Ports:
        """Replace each 0 by a port that is free now.

        Raises:
            SetupError: a port that was asked for is taken.
        """
        numbers: list[int] = []
        with contextlib.ExitStack() as stack:
            for name, port in (("gRPC", self.grpc), ("HTTP", self.http), ("metrics", self.metrics)):
                probe = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if port and port in numbers:
                    raise SetupError(f"{name} port {port} is given twice")
                try:
                    probe.bind((LOOPBACK, port))
                except OSError as error:
                    raise SetupError(
                        f"{name} port {port} cannot be used: {error.strerror}",
                        remedy="stop what listens there, or choose another port (0: any free one)",
                    ) from error
                numbers.append(probe.getsockname()[1])
        return Ports(*numbers)

    @property
    def chosen_freely(self) -> bool:
        """Whether another try may find other ports."""
        return 0 in (self.grpc, self.http, self.metrics)


async def listens(port: int) -> bool:
    """Whether something accepts connections on a port of loopback."""
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(LOOPBACK, port), 1.0)
    except (OSError, asyncio.TimeoutError):
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True

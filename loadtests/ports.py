"""Ports on loopback for servers of tests and measurements."""

from __future__ import annotations

import random
import socket
from typing import Final

# Below 32768, where Linux begins to give ports to clients (net.ipv4.ip_local_port_range): one of
# those may be taken by somebody's connection before the server that it was meant for has it.
_RANGE: Final = range(20_000, 32_768)
_given: set[int] = set()


def free_port() -> int:
    """A port that nobody listens on; each is given once by a process.

    Raises:
        OSError: all are taken.
    """
    for port in random.sample(_RANGE, len(_RANGE)):
        if port in _given:
            continue
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        _given.add(port)
        return port
    raise OSError(f"no free port from {_RANGE.start} to {_RANGE.stop - 1}")

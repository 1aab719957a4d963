"""Where the service may listen, and whether it can."""

from __future__ import annotations

import contextlib
import ipaddress
import socket

from orchestrator.errors import SetupError, UsageError


def check_loopback(host: str, *, keys: bool) -> None:
    """Refuse to be reachable from elsewhere without API keys.

    Args:
        host: address to listen on.
        keys: whether there are API keys.

    Raises:
        UsageError: ``host`` is not a loopback address, and there are none.
    """
    if host == "localhost" or keys:
        return
    with contextlib.suppress(ValueError):
        if ipaddress.ip_address(host).is_loopback:
            return
    raise UsageError(
        f"{host} is reachable from other machines, and the service has no API keys",
        remedy="make one with musetalk keys add NAME, or use --host 127.0.0.1",
    )


def listen(host: str, port: int) -> socket.socket:
    """Open the port.

    Raises:
        SetupError: it is taken or may not be opened.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise SetupError(
            f"port {port} of {host} cannot be opened: {error.strerror}",
            remedy="choose another one with --port",
        ) from error

"""One address, many Tritons: how the channel spreads calls, and when one goes to another server.

gRPC resolves a name to all its addresses and takes them in turn; a server that goes away is left
out until it answers again. What is here is how it is told to, and which failures are the
server's own, so that the same call may go to the next.
"""

from __future__ import annotations

import ipaddress
from typing import Final

from tritonclient.utils import InferenceServerException

from orchestrator.inference.rpc_errors import STOPPED

CHANNEL_ARGUMENTS: Final = [
    # These replace all defaults of tritonclient, its unlimited message sizes among them.
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.primary_user_agent", "musetalk-serving"),
    # A server that restarts is found again within a second, not after gRPC's two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # How long an attempt may take, in truth: a server without a free core needs more than 0.1 s.
    ("grpc.min_reconnect_backoff_ms", 2000),
    # A headless Kubernetes service is many addresses behind one name. The name is asked again
    # when a connection ends, which docker/serve-triton.sh makes happen every five minutes: by
    # then a new replica has its share.
    ("grpc.lb_policy_name", "round_robin"),
    ("grpc.dns_min_time_between_resolutions_ms", 5000),
    # A machine that vanishes closes no connection: without an answer to a ping for 10 s it is
    # gone. Servers must allow a ping every 10 s (--grpc-http2-min-recv-ping-interval-without-data).
    ("grpc.keepalive_time_ms", 30_000),
    # gRPC 1.85 itself waits a minute for that answer, whatever keepalive_timeout says
    # (grpc/grpc#39239), unless it is told so by the second name too.
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
]

PAUSES: Final = (0.0, 0.05, 0.2, 0.5, 1.0)
"""Seconds before a call is sent again. The next server may have it at once; then all are away,
and a restart takes a moment."""


def may_be_many(address: str) -> bool:
    """Whether an address can stand for several servers.

    Args:
        address: ``host:port``, or a gRPC name (``dns:///host:port``, ``ipv4:a:1,b:2``).
    """
    if "," in address:
        return True
    host = address.rpartition("/")[2].rpartition(":")[0].removeprefix("ipv4:").strip("[]")
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host != "localhost"
    return False


def servers_fault(error: BaseException) -> str | None:
    """Why another server may do better: ``unavailable`` or ``stopping``; None if none would.

    CANCELLED is what a server that shuts down answers. A cancel of our own never comes here: it
    is raised as CancelledError in the task.
    """
    if not isinstance(error, InferenceServerException):
        return None
    status = (error.status() or "").removeprefix("StatusCode.")
    message = (error.message() or "").lower()
    if status == "CANCELLED" or any(words in message for words in STOPPED):
        return "stopping"
    return "unavailable" if status == "UNAVAILABLE" else None

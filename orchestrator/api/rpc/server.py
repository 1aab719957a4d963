"""The gRPC server: methods, health, reflection, limits."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from orchestrator.api.musetalk.v1 import musetalk_pb2, musetalk_pb2_grpc
from orchestrator.api.rpc.catalogue import Catalogue
from orchestrator.api.rpc.converse import Conversing
from orchestrator.api.rpc.readable import Readable
from orchestrator.api.rpc.speak import Speaking
from orchestrator.api.service import Service
from orchestrator.errors import SetupError

NAME: Final = musetalk_pb2.DESCRIPTOR.services_by_name["MuseTalk"].full_name

_CALLS: Final = 256
_GRACE_SECONDS: Final = 5.0
_MOST_METADATA: Final = 16 * 1024
_FORM_OVERHEAD: Final = 64 * 1024


class Servicer(Speaking, Conversing, Catalogue, musetalk_pb2_grpc.MuseTalkServicer):
    """All methods of ``musetalk.v1.MuseTalk``.

    Args:
        service: what they work with.
    """

    def __init__(self, service: Service) -> None:
        Speaking.__init__(self, service)
        Conversing.__init__(self, service, service.places)


@asynccontextmanager
async def serve_rpc(service: Service, host: str, port: int) -> AsyncIterator[int]:
    """Serve gRPC in the block, in clear text: TLS is the business of what stands before it.

    Args:
        service: what the methods work with.
        host: address to listen on.
        port: 0 takes a free one.

    Yields:
        The port.

    Raises:
        SetupError: the port is taken or may not be opened.
    """
    server = grpc.aio.server(
        maximum_concurrent_rpcs=_CALLS,
        interceptors=[Readable()],
        options=[
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", service.settings.max_audio_bytes + _FORM_OVERHEAD),
            ("grpc.max_metadata_size", _MOST_METADATA),
            # A client that vanished without a word is noticed.
            ("grpc.keepalive_time_ms", 20_000),
            ("grpc.keepalive_timeout_ms", 5_000),
        ],
    )
    musetalk_pb2_grpc.add_MuseTalkServicer_to_server(  # type: ignore[no-untyped-call]
        Servicer(service), server
    )
    state = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(state, server)
    reflection.enable_server_reflection(
        (NAME, health.SERVICE_NAME, reflection.SERVICE_NAME), server
    )
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        bound = server.add_insecure_port(address)
    except RuntimeError as error:
        raise SetupError(
            f"port {port} of {host} cannot be opened for gRPC",
            remedy="choose another one with --grpc-port",
        ) from error
    await server.start()
    serving = health_pb2.HealthCheckResponse.SERVING
    await state.set("", serving)
    await state.set(NAME, serving)
    try:
        yield bound
    finally:
        await state.enter_graceful_shutdown()
        await server.stop(_GRACE_SECONDS)

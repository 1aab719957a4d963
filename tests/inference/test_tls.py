"""TLS and a token on the way to Triton."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from orchestrator.errors import SetupError
from orchestrator.inference.client import TritonClient


class Proxy(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Stands before a Triton and asks for a token."""

    async def ServerReady(self, request: Any, context: Any) -> Any:  # noqa: N802
        metadata = dict(context.invocation_metadata())
        ready = metadata.get("authorization") == "Bearer sesame"
        return service_pb2.ServerReadyResponse(ready=ready)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    key, pem = folder / "key.pem", folder / "ca.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
            *("-keyout", str(key), "-out", str(pem)),
        ],
        check=True,
        capture_output=True,
        timeout=60,
    )
    return key, pem


@pytest.fixture
async def address(certificate: tuple[Path, Path]) -> AsyncIterator[str]:
    key, pem = certificate
    server = grpc.aio.server()
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Proxy(), server)
    pair = (key.read_bytes(), pem.read_bytes())
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
    await server.start()
    yield f"localhost:{port}"
    await server.stop(0)


async def test_trusted_and_known(address: str, certificate: tuple[Path, Path]) -> None:
    async with TritonClient(address, tls_ca=certificate[1], token="sesame") as client:
        assert await client.ready()
    async with TritonClient(address, tls_ca=certificate[1], token="wrong") as client:
        assert not await client.ready()
    async with TritonClient(address, token="sesame") as client:
        assert not await client.ready()


@pytest.fixture
def other_authority(tmp_path: Path) -> Path:
    pem = tmp_path / "other.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=localhost", "-keyout", str(tmp_path / "k"), "-out", str(pem)),
        ],
        check=True,
        capture_output=True,
        timeout=60,
    )
    return pem


async def test_another_authority_is_not_trusted(address: str, other_authority: Path) -> None:
    async with TritonClient(address, tls_ca=other_authority, token="sesame") as client:
        assert not await client.ready()


def test_certificates_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="cannot be read"):
        TritonClient("localhost:1", tls_ca=tmp_path / "none.pem")

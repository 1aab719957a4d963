"""The client against a server that speaks Triton's protocol and misbehaves on order."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from orchestrator.errors import (
    BadInputError,
    DeadlineError,
    InferenceError,
    ModelMissingError,
    QueueFullError,
    ServerDiedError,
    UnavailableError,
)
from orchestrator.inference import TritonClient

X = np.ones((1, 3), np.float16)
Answer = Callable[
    [service_pb2.ModelInferRequest, grpc.aio.ServicerContext],
    Awaitable[service_pb2.ModelInferResponse],
]


class FakeTriton(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Answers as the test says; keeps the requests it saw."""

    def __init__(self) -> None:
        self.answer: Answer = echo
        self.requests: list[service_pb2.ModelInferRequest] = []
        self.cancelled = asyncio.Event()

    async def ModelInfer(  # noqa: N802 -- the protocol's name
        self, request: service_pb2.ModelInferRequest, context: grpc.aio.ServicerContext
    ) -> service_pb2.ModelInferResponse:
        self.requests.append(request)
        try:
            return await self.answer(request, context)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


async def echo(
    request: service_pb2.ModelInferRequest, _: grpc.aio.ServicerContext
) -> service_pb2.ModelInferResponse:
    """The inputs, as outputs of the same names."""
    response = service_pb2.ModelInferResponse(model_name=request.model_name)
    for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True):
        response.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        response.raw_output_contents.append(raw)
    return response


@pytest.fixture
async def fake() -> AsyncIterator[FakeTriton]:
    servicer = FakeTriton()
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1)])
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    servicer.address = f"127.0.0.1:{port}"  # type: ignore[attr-defined]
    yield servicer
    await server.stop(None)


@pytest.fixture
async def client(fake: FakeTriton) -> AsyncIterator[TritonClient]:
    async with TritonClient(fake.address, default_timeout=20) as client:  # type: ignore[attr-defined]
        yield client


# What Triton 2.51 answers, word for word, and what gRPC makes of a server that goes away.
ANSWERS = [
    (grpc.StatusCode.UNAVAILABLE, "Exceeds maximum queue size", QueueFullError, True),
    (
        grpc.StatusCode.UNAVAILABLE,
        "in ensemble 'lipsync', Exceeds maximum queue size",
        QueueFullError,
        True,
    ),
    (grpc.StatusCode.RESOURCE_EXHAUSTED, "too many requests", QueueFullError, True),
    (grpc.StatusCode.UNAVAILABLE, "Request timeout expired", DeadlineError, True),
    (grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded", DeadlineError, True),
    (
        grpc.StatusCode.NOT_FOUND,
        "Request for unknown model: 'unet' is not found",
        ModelMissingError,
        False,
    ),
    (
        grpc.StatusCode.UNAVAILABLE,
        "Request for unknown model: 'unet' has no available versions",
        UnavailableError,
        True,
    ),
    (
        grpc.StatusCode.UNAVAILABLE,
        "Server is stopping, scheduler is shutting down",
        UnavailableError,
        True,
    ),
    (grpc.StatusCode.UNAVAILABLE, "Socket closed", UnavailableError, True),
    (grpc.StatusCode.CANCELLED, "CANCELLED", UnavailableError, True),
    (
        grpc.StatusCode.INVALID_ARGUMENT,
        "[request id: <id_unknown>] inference request batch-size must be <= 8 for 'unet'",
        BadInputError,
        False,
    ),
    (grpc.StatusCode.INVALID_ARGUMENT, "unexpected shape for input 'x'", BadInputError, False),
    (
        grpc.StatusCode.INTERNAL,
        "Stub process 'unet_0_0' is not healthy.",
        UnavailableError,
        True,
    ),
    (grpc.StatusCode.INTERNAL, "out of memory", InferenceError, False),
    (grpc.StatusCode.UNIMPLEMENTED, "Method not found!", UnavailableError, True),
]


@pytest.mark.parametrize(("status", "words", "expected", "retryable"), ANSWERS)
async def test_each_refusal_has_its_error(
    fake: FakeTriton,
    client: TritonClient,
    status: grpc.StatusCode,
    words: str,
    expected: type[InferenceError],
    retryable: bool,
) -> None:
    async def refuse(_: object, context: grpc.aio.ServicerContext) -> None:
        await context.abort(status, words)

    fake.answer = refuse  # type: ignore[assignment]
    with pytest.raises(InferenceError) as caught:
        await client.infer("unet", {"x": X})
    assert type(caught.value) is expected
    assert caught.value.retryable is retryable
    assert "\n" not in str(caught.value)


async def test_arrays_travel_unchanged_and_in_any_layout(
    fake: FakeTriton, client: TritonClient
) -> None:
    rng = np.random.default_rng(0)
    arrays = {
        "half": rng.standard_normal((2, 3, 5)).astype(np.float16).transpose(0, 2, 1),
        "bytes": rng.integers(0, 256, (2, 4), np.uint8)[:, ::-1],
        "single": rng.standard_normal((2, 6)).astype(np.float32)[:, 1:4],
    }
    result = await client.infer("any", arrays, parameters={"steps": 5, "word": "x"})
    for name, array in arrays.items():
        np.testing.assert_array_equal(result[name], array)
        assert result[name].dtype == array.dtype
    assert fake.requests[0].parameters["steps"].int64_param == 5
    assert fake.requests[0].parameters["word"].string_param == "x"


async def test_messages_may_be_large(client: TritonClient) -> None:
    faces = np.full((64, 256, 256, 3), 7, np.uint8)  # 12 MB; gRPC's own limit is 4
    result = await client.infer("any", {"face": faces})
    assert result["face"].shape == faces.shape
    assert (result["face"] == 7).all()


async def test_speech_is_cut_where_the_server_sends_all(
    fake: FakeTriton, client: TritonClient
) -> None:
    async def whole(_: object, __: grpc.aio.ServicerContext) -> service_pb2.ModelInferResponse:
        hidden = np.arange(1500, dtype=np.float16).reshape(1, 1500, 1, 1)
        hidden = np.ascontiguousarray(np.broadcast_to(hidden, (1, 1500, 5, 384)))
        response = service_pb2.ModelInferResponse(raw_output_contents=[hidden.tobytes()])
        response.outputs.add(name="hidden_states", datatype="FP16", shape=hidden.shape)
        return response

    fake.answer = whole  # type: ignore[assignment]
    hidden = await client.encode_speech(np.zeros((80, 3000), np.float32), 12)
    assert hidden.shape == (12, 5, 384)
    assert hidden[11, 0, 0] == 11
    assert fake.requests[0].parameters["steps"].int64_param == 12


async def test_an_answer_without_the_output_is_an_error(client: TritonClient) -> None:
    with pytest.raises(InferenceError, match="no output face"):
        await client.lipsync(
            np.zeros((1, 8, 32, 32), np.float16), np.zeros((1, 50, 384), np.float16)
        )


async def test_a_dtype_that_no_model_takes(client: TritonClient) -> None:
    with pytest.raises(BadInputError, match="complex64"):
        await client.infer("any", {"x": np.zeros((1, 3), np.complex64)})


async def test_the_deadline_travels_with_the_call(fake: FakeTriton, client: TritonClient) -> None:
    remaining: list[float] = []

    async def silence(_: object, context: grpc.aio.ServicerContext) -> None:
        remaining.append(context.time_remaining())
        await asyncio.sleep(60)

    fake.answer = silence  # type: ignore[assignment]
    with pytest.raises(DeadlineError):
        await client.infer("any", {"x": X}, timeout=0.3)
    assert 0 < remaining[0] <= 0.35
    await asyncio.wait_for(fake.cancelled.wait(), 10)


async def test_cancelling_the_task_cancels_on_the_server(
    fake: FakeTriton, client: TritonClient
) -> None:
    arrived = asyncio.Event()

    async def silence(_: object, __: grpc.aio.ServicerContext) -> None:
        arrived.set()
        await asyncio.sleep(60)

    fake.answer = silence  # type: ignore[assignment]
    call = asyncio.create_task(client.infer("any", {"x": X}))
    await asyncio.wait_for(arrived.wait(), 10)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await asyncio.wait_for(fake.cancelled.wait(), 10)


async def test_the_same_client_finds_a_server_that_comes_back() -> None:
    servicer = FakeTriton()

    async def start(port: int) -> tuple[grpc.aio.Server, int]:
        server = grpc.aio.server()
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, server)
        port = server.add_insecure_port(f"127.0.0.1:{port}")
        await server.start()
        return server, port

    server, port = await start(0)
    async with TritonClient(f"127.0.0.1:{port}") as client:
        await client.infer("any", {"x": X})
        await server.stop(None)
        with pytest.raises(UnavailableError):
            await client.infer("any", {"x": X})
        server, _ = await start(port)
        for attempt in itertools.count():
            try:
                await client.infer("any", {"x": X})
                break
            except UnavailableError:
                assert attempt < 100
                await asyncio.sleep(0.1)
    await server.stop(None)


async def test_who_knows_why_nobody_answers_is_asked(fake: FakeTriton) -> None:
    async def refuse(_: object, context: grpc.aio.ServicerContext) -> None:
        await context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")

    fake.answer = refuse  # type: ignore[assignment]
    reason = ServerDiedError("it died 4 times")
    async with TritonClient(fake.address, why_down=lambda: reason) as client:  # type: ignore[attr-defined]
        with pytest.raises(ServerDiedError, match="4 times"):
            await client.infer("any", {"x": X})


async def test_what_is_not_triton_is_never_ready(client: TritonClient) -> None:
    # The fake answers no health call, as any other gRPC service would.
    assert not await client.ready()
    with pytest.raises(UnavailableError, match="not Triton"):
        await client.has_model("unet")

"""Single requests that are no messages: gRPC itself would answer that the service failed."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError

from orchestrator.api.rpc.guard import Context, refuse
from orchestrator.errors import UsageError

_UNREADABLE: Final = "the request cannot be read"


class Readable(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Answers requests that cannot be decoded with INVALID_ARGUMENT.

    Those of a stream of requests are decoded as the method takes them, where ``guard`` sees the
    error; a single one is decoded before there is a method to be guarded, and so here.
    """

    async def intercept_service(
        self,
        continuation: Callable[[Any], Awaitable[Any]],
        handler_call_details: Any,
    ) -> Any:
        """The handler of a method, which decodes its request itself."""
        handler = await continuation(handler_call_details)
        if handler is None or handler.request_streaming or handler.request_deserializer is None:
            return handler
        decode = handler.request_deserializer
        if not handler.response_streaming:
            return grpc.unary_unary_rpc_method_handler(
                _one(handler.unary_unary, decode),
                response_serializer=handler.response_serializer,
            )
        wrap = _many if inspect.isasyncgenfunction(handler.unary_stream) else _one
        return grpc.unary_stream_rpc_method_handler(
            wrap(handler.unary_stream, decode),
            response_serializer=handler.response_serializer,
        )


def _one(method: Any, decode: Callable[[bytes], Any]) -> Any:
    async def call(data: bytes, context: Context) -> Any:
        return await method(await _decoded(data, decode, context), context)

    return call


def _many(method: Any, decode: Callable[[bytes], Any]) -> Any:
    async def call(data: bytes, context: Context) -> AsyncIterator[Any]:
        request = await _decoded(data, decode, context)
        answers = method(request, context)
        try:
            async for answer in answers:
                yield answer
        finally:
            await answers.aclose()

    return call


async def _decoded(data: bytes, decode: Callable[[bytes], Any], context: Context) -> Any:
    try:
        return decode(data)
    except (DecodeError, ValueError):
        await refuse(context, UsageError(_UNREADABLE))

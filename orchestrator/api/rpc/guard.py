"""Who calls, and what an error looks like over gRPC."""

from __future__ import annotations

import functools
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, Final, NoReturn, TypeAlias, TypeVar

import grpc
from google.protobuf.message import DecodeError

from orchestrator.api.access import Caller, secret_of
from orchestrator.api.service import Service
from orchestrator.errors import MuseTalkError, UsageError

LOG: Final = logging.getLogger("musetalk.api")

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
T = TypeVar("T")

_STATUS: Final = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    409: grpc.StatusCode.FAILED_PRECONDITION,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}


def caller_of(context: Context, service: Service) -> Caller:
    """Who calls.

    Raises:
        UnauthorizedError: a key is needed, and the metadata has none that is known.
    """
    metadata = dict(context.invocation_metadata() or ())
    secret = secret_of(_text(metadata.get("authorization")), _text(metadata.get("x-api-key")))
    return service.access.identify(secret)


def answers(
    method: Callable[[Any, Any, Context], Awaitable[T]],
) -> Callable[[Any, Any, Context], Awaitable[T]]:
    """A method with one answer, whose errors become gRPC's."""

    @functools.wraps(method)
    async def guarded(self: Any, request: Any, context: Context) -> T:
        try:
            return await method(self, request, context)
        except MuseTalkError as error:
            await refuse(context, error)
        except DecodeError:
            await refuse(context, UsageError("a message cannot be read"))
        except grpc.aio.AbortError:
            raise
        except Exception:
            LOG.exception("gRPC: unforeseen error")
            await _fail(context)

    return guarded


def streams(
    method: Callable[[Any, Any, Context], AsyncGenerator[T, None]],
) -> Callable[[Any, Any, Context], AsyncIterator[T]]:
    """A method with many answers, whose errors become gRPC's.

    gRPC takes the next answer when the client has room for it: that is the back-pressure. When
    the client is gone, or its deadline passed, the method is cancelled.
    """

    @functools.wraps(method)
    async def guarded(self: Any, request: Any, context: Context) -> AsyncIterator[T]:
        try:
            async with aclosing(method(self, request, context)) as parts:
                async for part in parts:
                    yield part
        except MuseTalkError as error:
            await refuse(context, error)
        except DecodeError:
            await refuse(context, UsageError("a message cannot be read"))
        except grpc.aio.AbortError:
            raise
        except Exception:
            LOG.exception("gRPC: unforeseen error")
            await _fail(context)

    return guarded


async def refuse(context: Context, error: MuseTalkError) -> NoReturn:
    """End a call with one of the project's own errors."""
    status = _STATUS.get(error.http_status, grpc.StatusCode.INTERNAL)
    if error.http_status >= 500:
        LOG.error("gRPC: %s: %s", error.code, error)
    trailing = (("code", error.code), ("remedy-bin", error.remedy.encode()))
    await context.abort(status, error.message, trailing)
    raise AssertionError("abort raises")


async def _fail(context: Context) -> NoReturn:
    await context.abort(
        grpc.StatusCode.INTERNAL, "an unforeseen error; the log has it", (("code", "internal"),)
    )
    raise AssertionError("abort raises")


def _text(value: str | bytes | None) -> str | None:
    return value.decode(errors="replace") if isinstance(value, bytes) else value

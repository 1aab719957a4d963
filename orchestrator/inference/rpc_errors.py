"""From gRPC status and Triton's words to the project's error tree."""

from __future__ import annotations

import asyncio
import re

from tritonclient.utils import InferenceServerException

from orchestrator.errors import (
    BadInputError,
    DeadlineError,
    InferenceError,
    ModelMissingError,
    MuseTalkError,
    QueueFullError,
    UnavailableError,
)

QUEUE_FULL = ("exceeds maximum queue size", "queue is full", "request rejected")
EXPIRED = ("request timeout expired", "timeout expired")
MISSING = ("unknown model", "is not found")
STOPPED = ("server is stopping", "stub process", "has no available versions")
"""A server that stops has unloaded its models already while it still answers."""
_STALLED = re.compile(r"stub process '(?P<model>.+?)_\d+_\d+' is not healthy", re.IGNORECASE)
BAD_INPUT = (
    "unexpected shape",
    "unexpected datatype",
    "unexpected inference input",
    "unexpected inference output",
    "unexpected total byte size",
    "batch-size must be <=",
    "expected %d inputs",
    "inputs but got",
)


def translate(error: BaseException, *, model: str, address: str) -> MuseTalkError:
    """Make an error of the project from what the Triton client raised.

    Triton reports a full queue and a model that is still loading both as UNAVAILABLE, and an
    expired queue time-out in its words alone, so that the message is read as well.

    Args:
        error: what was raised by ``tritonclient``.
        model: the model that was called; empty for calls about the server.
        address: the server's address.

    Returns:
        The error to raise.
    """
    if isinstance(error, asyncio.TimeoutError):
        return DeadlineError(_about(model, "no answer within the deadline"))
    if not isinstance(error, InferenceServerException):
        return InferenceError(_about(model, f"{type(error).__name__}: {error}"))
    status = (error.status() or "").removeprefix("StatusCode.")
    message = " ".join((error.message() or "").split())
    low = message.lower()
    if any(words in low for words in QUEUE_FULL):
        return QueueFullError(_about(model, "Triton's queue is full"))
    if status == "DEADLINE_EXCEEDED" or any(words in low for words in EXPIRED):
        return DeadlineError(_about(model, "no answer within the deadline"))
    if status in ("UNAVAILABLE", "CANCELLED") or any(words in low for words in STOPPED):
        # CANCELLED is what a server that shuts down answers: a cancel of our own never
        # arrives here, it is raised as CancelledError in the task.
        return UnavailableError(f"Triton at {address} is unavailable: {message}")
    if status == "NOT_FOUND" or any(words in low for words in MISSING):
        return ModelMissingError(
            _about(model, f"Triton at {address} does not serve it: {message}"),
            remedy="check the model repository of that server",
        )
    if status == "RESOURCE_EXHAUSTED":
        return QueueFullError(_about(model, message))
    if status == "INVALID_ARGUMENT" or any(words in low for words in BAD_INPUT):
        return BadInputError(_about(model, message))
    if status == "UNIMPLEMENTED":
        return UnavailableError(
            f"what answers at {address} is not Triton", remedy="check the address"
        )
    return InferenceError(_about(model, message or status))


def stalled_model(error: BaseException) -> str | None:
    """Name of the model that Triton gave up on because its process stood still for a second.

    Triton then takes back the memory that it shares with that process, which may go on to use
    it: from there on anything may happen, wrong answers and crashes of either (seen within
    seconds with 2.51, whenever a process was stopped for some seconds under load). A machine that
    is suspended or has no time for the process is enough.
    """
    if not isinstance(error, InferenceServerException):
        return None
    found = _STALLED.search(error.message() or "")
    return found["model"] if found else None


def _about(model: str, message: str) -> str:
    """The message, with the model it is about."""
    return f"{model}: {message}" if model else message

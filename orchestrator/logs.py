"""Structured logs: each line says which request, session and turn it belongs to.

What viewers say, what avatars answer and keys are never logged.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any, Final, Literal

from orchestrator.settings import Settings

TIMING: Final = logging.getLogger("musetalk.timing")
"""Debug lines of what took how long; silent unless ``debug_timing`` is set."""

# Their lines hold addresses with passwords, and at the debug level whole requests.
_TALKATIVE: Final = (
    *("openai", "httpx", "httpx2", "httpcore", "httpcore2", "socketio", "engineio"),
    *("urllib3", "multipart", "python_multipart", "websockets"),
)

_bound: ContextVar[MappingProxyType[str, str]] = ContextVar("bound", default=MappingProxyType({}))


@contextmanager
def bound(**fields: str) -> Iterator[None]:
    """Add fields to every line that is logged in the block, and in tasks that start there.

    Args:
        fields: short identifiers: ``session="…"``, ``turn="…"``, ``request="…"``.
    """
    token = _bound.set(MappingProxyType({**_bound.get(), **fields}))
    try:
        yield
    finally:
        _bound.reset(token)


def timing(what: str, **numbers: float) -> None:
    """Log how long something took, where ``debug_timing`` is set.

    Args:
        what: stage or event.
        numbers: seconds and counts.
    """
    if TIMING.isEnabledFor(logging.DEBUG):
        TIMING.debug("%s", what, extra={"numbers": numbers})


def setup_logging(settings: Settings) -> None:
    """Send the logs of the whole process to standard error.

    Args:
        settings: ``log_format`` and ``debug_timing``.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(formatter(settings.log_format))
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
    TIMING.setLevel(logging.DEBUG if settings.debug_timing else logging.INFO)


def formatter(style: Literal["text", "json"]) -> logging.Formatter:
    """Lines for people, or JSON objects for programs."""
    return _Json() if style == "json" else _Text("%(asctime)s %(levelname)s %(message)s")


class _Text(logging.Formatter):
    """``… message session=… turn=…``, always one line for each record without an exception."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 -- logging's name
        """Add the fields."""
        fields = {**_numbers(record), **_bound.get()}
        words = [super().formatMessage(record), *(f"{k}={v}" for k, v in fields.items())]
        return " ".join(" ".join(words).splitlines())


class _Json(logging.Formatter):
    """One object for each record."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON."""
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{seconds}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_numbers(record),
            **_bound.get(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def _numbers(record: logging.LogRecord) -> dict[str, float]:
    numbers = getattr(record, "numbers", {})
    return {name: round(value, 4) for name, value in numbers.items()}

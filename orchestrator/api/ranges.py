"""Byte ranges and conditional requests (RFC 9110, sections 13 and 14) of one resource."""

from __future__ import annotations

import re
from typing import Final

from starlette.datastructures import Headers

_RANGE: Final = re.compile(r"bytes=\s*(\d{0,18})-(\d{0,18})\s*", re.IGNORECASE)


class UnsatisfiableRangeError(Exception):
    """The range begins after the end of the resource."""


def is_unchanged(headers: Headers, etag: str) -> bool:
    """Whether the client has this very resource (``If-None-Match``)."""
    given = headers.get("if-none-match")
    if given is None:
        return False
    tags = {tag.strip().removeprefix("W/") for tag in given.split(",")}
    return "*" in tags or etag in tags


def wanted_range(headers: Headers, etag: str, size: int) -> tuple[int, int] | None:
    """The part that the client asks for.

    Args:
        headers: of the request.
        etag: strong, in quotes.
        size: bytes of the whole resource.

    Returns:
        First byte and end of the part; None: the whole. Several ranges at once, other units and
        ranges of an older version get the whole, as the RFC allows.

    Raises:
        UnsatisfiableRangeError: there is nothing at that place.
    """
    match = _RANGE.fullmatch(headers.get("range", ""))
    if match is None or match.group() == "" or headers.get("if-range", etag) != etag:
        return None
    first, last = match.groups()
    if first:
        start, stop = int(first), int(last) + 1 if last else size
        if last and stop <= start:
            return None  # no valid range: as if it were not there
    elif last:
        start, stop = max(0, size - int(last)), size
    else:
        return None
    stop = min(stop, size)
    if start >= stop:
        raise UnsatisfiableRangeError
    return start, stop

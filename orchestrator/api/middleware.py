"""What every request passes: an id, the check of the host it names, a count."""

from __future__ import annotations

import logging
import re
import uuid
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestrator.api.problems import problem
from orchestrator.telemetry import Telemetry

LOG: Final = logging.getLogger("musetalk.api")

_SANE_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_LOCAL_HOST: Final = re.compile(r"(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d+)?", re.IGNORECASE)


class Gate:
    """ASGI middleware around the whole application.

    The service has no keys yet and listens on loopback only. A web page of somebody else's can
    still make a browser send it requests; such a request names a foreign host (after DNS
    rebinding) or a foreign origin, and is refused.

    Args:
        app: the application.
        telemetry: counts the requests.
    """

    def __init__(self, app: ASGIApp, telemetry: Telemetry) -> None:
        self._app = app
        self._telemetry = telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        identity = given if _SANE_ID.fullmatch(given) else uuid.uuid4().hex
        scope["musetalk.request_id"] = identity
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-ID"] = identity
            await send(message)

        try:
            if is_foreign(headers.get("host", ""), headers.get("origin")):
                refusal = problem(
                    Request(scope),
                    403,
                    "foreign_host",
                    "this service answers only to pages and programs on its own machine",
                )
                await refusal(scope, receive, send_with_id)
            else:
                await self._app(scope, receive, send_with_id)
        except Exception:
            if status:
                raise  # the answer has begun: only breaking the connection tells the client now
            LOG.exception("request %s: unforeseen error", identity)
            detail = "an unforeseen error; the log has it under this request id"
            answer = problem(Request(scope), 500, "internal", detail)
            await answer(scope, receive, send_with_id)
        finally:
            route = getattr(scope.get("route"), "path", "unmatched")
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self._telemetry.http_requests.labels(method, route, str(status)).inc()


def is_foreign(host: str, origin: str | None) -> bool:
    """Whether a request comes from somebody else's web page.

    Args:
        host: header ``Host``; a foreign one after DNS rebinding.
        origin: header ``Origin``, if there is one.
    """
    if origin is not None and not _LOCAL_HOST.fullmatch(origin.partition("://")[2]):
        return True
    return not _LOCAL_HOST.fullmatch(host)

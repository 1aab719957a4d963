"""What every request passes: an id, the check of its origin and key, headers, a count."""

from __future__ import annotations

import errno
import logging
import re
import uuid
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestrator.api.access import Access, secret_of
from orchestrator.api.problems import from_error, problem
from orchestrator.errors import MuseTalkError, SetupError
from orchestrator.telemetry import Telemetry

LOG: Final = logging.getLogger("musetalk.api")

_SANE_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_OPEN: Final = re.compile(r"/|/studio/.*|/healthz|/readyz|/metrics|/openapi\.json")
"""Paths that need no key: the page, which asks for one, and what machines ask about health."""

_SECURITY_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
    "Cache-Control": "no-store",
}
_STRICT_TRANSPORT: Final = "max-age=31536000"


class Gate:
    """ASGI middleware around the whole application.

    Args:
        app: the application.
        telemetry: counts the requests.
        access: lets callers in; ``request.state.owner`` says who it is.
    """

    def __init__(self, app: ASGIApp, telemetry: Telemetry, access: Access) -> None:
        self._app = app
        self._telemetry = telemetry
        self._access = access

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

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                answer = MutableHeaders(scope=message)
                answer["X-Request-ID"] = identity
                for name, value in _SECURITY_HEADERS.items():
                    answer.setdefault(name, value)
                if scope.get("scheme") == "https":
                    answer.setdefault("Strict-Transport-Security", _STRICT_TRANSPORT)
            await send(message)

        try:
            try:
                self._admit(scope, headers)
            except MuseTalkError as error:
                refusal = from_error(Request(scope), error)
                if error.http_status == 401:
                    refusal.headers["WWW-Authenticate"] = "Bearer"
                await refusal(scope, receive, send_with_headers)
            else:
                await self._app(scope, receive, send_with_headers)
        except Exception as error:
            if status:
                raise  # the answer has begun: only breaking the connection tells the client now
            LOG.exception("request %s: unforeseen error", identity)
            await _answer(Request(scope), error)(scope, receive, send_with_headers)
        finally:
            route = getattr(scope.get("route"), "path", "unmatched")
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self._telemetry.http_requests.labels(method, route, str(status)).inc()

    def _admit(self, scope: Scope, headers: Headers) -> None:
        """Note whose request it is.

        Raises:
            MuseTalkError: it may not come in.
        """
        self._access.check_origin(headers.get("host", ""), headers.get("origin"))
        if _OPEN.fullmatch(scope["path"]):
            return
        self._access.check_site(headers.get("sec-fetch-site"), headers.get("origin"))
        secret = secret_of(headers.get("authorization"), headers.get("x-api-key"))
        scope.setdefault("state", {})["owner"] = self._access.identify(secret).id


def _answer(request: Request, error: Exception) -> Response:
    """What a client is told of an error that no part of the service foresaw."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        full = SetupError("the server's disk is full", remedy="free some space on it")
        return from_error(request, full)
    detail = "an unforeseen error; the log has it under this request id"
    return problem(request, 500, "internal", detail)

"""Errors as ``application/problem+json`` (RFC 9457), each with a code and the request's id."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Annotated, Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from orchestrator.errors import MuseTalkError

LOG: Final = logging.getLogger("musetalk.api")

RETRY_AFTER_SECONDS: Final = 5
"""What a client is told to wait where nothing better is known."""


class ProblemDocument(BaseModel):
    """What every error looks like (RFC 9457)."""

    type: Annotated[str, Field(examples=["about:blank"])]
    title: Annotated[str, Field(examples=["Not Found"])]
    status: Annotated[int, Field(examples=[404])]
    code: Annotated[str, Field(description="stable, for programs", examples=["not_found"])]
    detail: Annotated[str, Field(description="one line for people")]
    request_id: Annotated[str, Field(description="the log has it too")]
    remedy: Annotated[str | None, Field(description="what the caller can do")] = None


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The answers with a problem document that a route can give, for the OpenAPI document."""
    schema = {"$ref": "#/components/schemas/ProblemDocument"}
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {"application/problem+json": {"schema": schema}},
            "model": ProblemDocument,
        }
        for status in statuses
    }


def request_id(request: Request) -> str:
    """The id that the middleware gave this request."""
    return str(request.scope.get("musetalk.request_id", ""))


def problem(
    request: Request,
    status: int,
    code: str,
    detail: str,
    *,
    remedy: str = "",
    headers: dict[str, str] | None = None,
) -> JSONResponse:
    """A problem document.

    Args:
        request: the request that failed.
        status: HTTP status.
        code: short name of the kind of error, stable for programs.
        detail: one line for people.
        remedy: what the caller can do; left out when empty.
        headers: extra headers.
    """
    content = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "detail": detail,
        "request_id": request_id(request),
    }
    if remedy:
        content["remedy"] = remedy
    return JSONResponse(content, status, media_type="application/problem+json", headers=headers)


def from_error(
    request: Request, error: MuseTalkError, *, retry_after: int = RETRY_AFTER_SECONDS
) -> JSONResponse:
    """The problem document of one of the project's own errors."""
    headers = {"Retry-After": str(retry_after)} if error.retryable else None
    return problem(
        request,
        error.http_status,
        error.code,
        error.message,
        remedy=error.remedy,
        headers=headers,
    )


def install(app: FastAPI) -> None:
    """Make every error of an application a problem document."""

    @app.exception_handler(MuseTalkError)
    async def own(request: Request, error: MuseTalkError) -> JSONResponse:
        if error.http_status >= 500:
            LOG.error("request %s: %s: %s", request_id(request), error.code, error)
        return from_error(request, error)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return problem(request, 422, "bad_request", f"{where}: {first['msg']}")

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        code = HTTPStatus(error.status_code).name.lower()
        headers = dict(error.headers) if error.headers else None
        return problem(request, error.status_code, code, str(error.detail), headers=headers)

"""The studio: the page in the browser, served from the package with a strict policy.

All files are read once. The page names them under a folder that is a digest of their content, so
that a browser may keep them for ever and never mixes two versions.
"""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fastapi import APIRouter, Request
from fastapi.responses import Response

from orchestrator.errors import NotFoundError, SetupError

if TYPE_CHECKING:
    from orchestrator.api.http import Service

FOLDER: Final = Path(__file__).parent / "web"

CONTENT_SECURITY_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self' blob:",
        "media-src 'self' blob:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)

_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_HEADERS: Final = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Vary": "Accept-Encoding",
}
_PLACEHOLDER: Final = b"{{assets}}"


@dataclass(frozen=True)
class _File:
    content: bytes
    packed: bytes
    kind: str
    tag: str


@dataclass(frozen=True)
class _Studio:
    page: _File
    version: str
    files: dict[str, _File]


def router(service: Service) -> APIRouter:
    """``/`` and the files of the page.

    Args:
        service: not used: the page asks the public interface, like everybody else.

    Raises:
        SetupError: the page's files are not in the installation.
    """
    studio = _load()
    routes = APIRouter(include_in_schema=False)

    @routes.api_route("/", methods=["GET", "HEAD"])
    async def page(request: Request) -> Response:
        return _answer(request, studio.page, "no-cache")

    @routes.api_route("/studio/{version}/{path:path}", methods=["GET", "HEAD"])
    async def asset(request: Request, version: str, path: str) -> Response:
        file = studio.files.get(path)
        if file is None or version != studio.version:
            raise NotFoundError("the studio has no such file", remedy="reload the page")
        return _answer(request, file, "public, max-age=31536000, immutable")

    return routes


def _answer(request: Request, file: _File, caching: str) -> Response:
    headers = _HEADERS | {"Cache-Control": caching, "ETag": file.tag}
    if file.tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    content = file.content
    if "gzip" in request.headers.get("accept-encoding", ""):
        headers["Content-Encoding"] = "gzip"
        content = file.packed
    return Response(content, headers=headers, media_type=file.kind)


@cache
def _load() -> _Studio:
    contents = {
        path.relative_to(FOLDER).as_posix(): path.read_bytes()
        for path in sorted(FOLDER.rglob("*"))
        if path.suffix in _TYPES
    }
    page = contents.pop("index.html", None)
    if page is None:
        raise SetupError(
            f"{FOLDER} has no index.html", remedy="install the package again, with its data"
        )
    digest = hashlib.sha256()
    for name, content in contents.items():
        digest.update(f"{name}\n{len(content)}\n".encode() + content)
    version = digest.hexdigest()[:16]
    page = page.replace(_PLACEHOLDER, f"/studio/{version}".encode())
    files = {name: _file(name, content) for name, content in contents.items()}
    return _Studio(_file("index.html", page), version, files)


def _file(name: str, content: bytes) -> _File:
    # Weak, because the same tag names the compressed form too.
    tag = f'W/"{hashlib.sha256(content).hexdigest()[:20]}"'
    return _File(content, gzip.compress(content, mtime=0), _TYPES[Path(name).suffix], tag)

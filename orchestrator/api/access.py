"""Who may do what: keys, origins, and what is left of a key's limits."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import Final

from fastapi import Request

from orchestrator.api.keys import KeyFile, Limits, keys_path
from orchestrator.api.usage import Usage, today
from orchestrator.errors import ForeignHostError, QuotaError, UnauthorizedError
from orchestrator.jobs.database import sqlite_url
from orchestrator.rendering.listing import LOCAL
from orchestrator.settings import Settings

_LOCAL_HOST: Final = re.compile(r"(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d+)?", re.IGNORECASE)


@dataclass(frozen=True)
class Caller:
    """Somebody who was let in.

    Attributes:
        id: of the key, or ``LOCAL``; owner of what is made.
        limits: of the key; None: there are none.
    """

    id: str = LOCAL
    limits: Limits | None = None


class Access:
    """Lets callers in.

    Without keys only programs and pages of this machine are: whoever gets here may do all. A web
    page of somebody else's can still make a browser send requests; they name a foreign host
    (after DNS rebinding) or a foreign origin. With keys the key decides; a browser's origin must
    be our own or one of ``MUSETALK_CORS_ORIGINS``.

    Args:
        settings: of the process.
    """

    def __init__(self, settings: Settings) -> None:
        self._file = KeyFile(keys_path(settings))
        self._origins = frozenset(settings.cors_origins)
        self.required = bool(self._file.keys())
        """Whether a key is needed; stays so also when the last one is removed."""
        url = settings.database_url
        self.usage = Usage(
            url.get_secret_value() if url else sqlite_url(settings.cache_dir / "usage.sqlite")
        )

    def check_origin(self, host: str, origin: str | None) -> None:
        """Refuse somebody else's web pages.

        Args:
            host: header ``Host``.
            origin: header ``Origin``, if there is one.

        Raises:
            ForeignHostError: the request comes from one.
        """
        known = origin is None or origin in self._origins
        if self.required:
            own = origin is not None and origin.partition("://")[2].lower() == host.lower()
            if known or own:
                return
            raise ForeignHostError(
                "this service does not answer to pages of that origin",
                remedy="its operator can add the origin to MUSETALK_CORS_ORIGINS",
            )
        if origin is not None and not known:
            known = _LOCAL_HOST.fullmatch(origin.partition("://")[2]) is not None
        if not (known and _LOCAL_HOST.fullmatch(host)):
            raise ForeignHostError(
                "this service answers only to pages and programs on its own machine",
                remedy="use it from there, or give it API keys: musetalk keys add",
            )

    def check_site(self, site: str | None, origin: str | None) -> None:
        """Refuse what somebody else's web page embeds, such as a picture, which has no origin.

        Args:
            site: header ``Sec-Fetch-Site``, which browsers send.
            origin: header ``Origin``, if there is one.

        Raises:
            ForeignHostError: the request comes from a page of another site.
        """
        if site == "cross-site" and origin not in self._origins:
            raise ForeignHostError("this service does not answer to pages of other sites")

    def identify(self, secret: str | None) -> Caller:
        """Who has a key.

        Args:
            secret: the key as it was sent; None: none was.

        Raises:
            UnauthorizedError: a key is needed, and this is none.
            SetupError: the file of the keys is damaged.
        """
        if not self.required:
            return Caller()
        key = self._file.find(secret) if secret else None
        if key is None:
            raise UnauthorizedError(
                "this service needs an API key" if not secret else "the API key is not known",
                remedy="send it as Authorization: Bearer KEY",
            )
        return Caller(key.id, key.limits)

    def limits(self, owner: str) -> Limits | None:
        """Limits of a key as they are now; None: there are none."""
        key = self._file.keys().get(owner)
        return key.limits if key else None

    def job_limit(self, owner: str) -> int | None:
        """Unfinished video jobs that a caller may have; None: any number."""
        limits = self.limits(owner)
        return limits.jobs if limits else None

    async def require_seconds(self, owner: str) -> None:
        """Refuse new work for a key that has made its seconds of video today.

        Raises:
            QuotaError: it has.
        """
        limits = self.limits(owner)
        if limits is None:
            return
        used = await asyncio.to_thread(self.usage.seconds, owner, today())
        if used >= limits.video_seconds:
            raise QuotaError(
                f"this key has made {used:.0f} s of video today, of {limits.video_seconds} s",
                remedy="come back tomorrow (UTC), or ask the operator for more",
            )

    async def count_seconds(self, owner: str, seconds: float) -> None:
        """Count video that was made for a key."""
        if owner != LOCAL and seconds > 0:
            await asyncio.to_thread(self.usage.add, owner, today(), seconds)


def secret_of(authorization: str | None, api_key: str | None) -> str | None:
    """The key in the headers ``Authorization`` or ``X-API-Key``."""
    if authorization is not None:
        scheme, _, secret = authorization.partition(" ")
        return secret.strip() if scheme.lower() == "bearer" else None
    return api_key


def owner_of(request: Request) -> str:
    """Whose request it is, as the middleware found out."""
    return str(request.state.owner)

"""The avatars as callers see them: whose they are, how far one is, adding and deleting.

An avatar that is added here has an id that cannot be guessed; its title is for people. Avatars
that the operator added on the command line have no owner: everybody may use them.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import cv2

from orchestrator.avatars.avatar import Avatar
from orchestrator.avatars.prepare import prepared_path
from orchestrator.avatars.sheet import contact_sheet
from orchestrator.avatars.uploads import judge
from orchestrator.errors import ConflictError, NotFoundError, UsageError
from orchestrator.rendering.encode import Mp4Writer
from orchestrator.rendering.listing import Listed, find_listed, ready_avatars
from orchestrator.rendering.making import Making
from orchestrator.rendering.presets import LIVE
from orchestrator.rendering.render import source_index

if TYPE_CHECKING:
    from orchestrator.rendering.renderer import Renderer
    from orchestrator.settings import Settings

_PREVIEW_SECONDS: Final = 4
_MAX_NAME: Final = 64
_MAX_CONSENT: Final = 500
_STALE_SECONDS: Final = 24 * 3600.0


class Library:
    """The avatars of a service; made by ``open_library``.

    Args:
        settings: of the process.
        renderer: prepares and finds avatars.
    """

    def __init__(self, settings: Settings, renderer: Renderer) -> None:
        self._settings = settings
        self._renderer = renderer
        self._gallery = renderer.gallery
        self._making = Making(settings, renderer)
        self._encoding = asyncio.Lock()
        self._uploads = settings.cache_dir / "uploads"
        self._previews = settings.cache_dir / "previews"

    async def visible(self, owner: str) -> list[Listed]:
        """The avatars that a caller may use, portraits first."""
        made = self._making.listed()  # first: one that becomes ready meanwhile is seen twice
        ready = await asyncio.to_thread(ready_avatars, self._gallery)
        shown = {listed.id: listed for listed in [*made, *ready] if listed.is_for(owner)}
        return sorted(shown.values(), key=lambda one: (not one.portrait, one.name.lower(), one.id))

    async def get(self, owner: str, identity: str) -> Listed:
        """One of them.

        Raises:
            NotFoundError: there is none with this id, or it is somebody else's.
        """
        listed = self._making.find(identity)
        if listed is None:
            listed = await asyncio.to_thread(find_listed, self._gallery, identity)
        if listed is None or not listed.is_for(owner):
            raise NotFoundError("there is no such avatar", remedy="GET /v1/avatars lists them")
        return listed

    async def usable(self, owner: str, identity: str | None) -> str:
        """The name by which the renderer finds an avatar that a caller may use.

        Args:
            owner: the caller.
            identity: of the avatar; None: the first of the list.

        Raises:
            NotFoundError: there is none, or it is somebody else's.
            ConflictError: it is not ready yet, or failed.
        """
        if identity is None:
            for listed in await self.visible(owner):
                if listed.status == "ready":
                    return listed.id
            raise NotFoundError("there is no avatar yet", remedy="add one: POST /v1/avatars")
        listed = await self.get(owner, identity)
        if listed.status != "ready":
            raise ConflictError(
                f"the avatar is not ready: {listed.status}", remedy="ask for its status"
            )
        return listed.id

    @asynccontextmanager
    async def upload(self) -> AsyncIterator[Path]:
        """A private place for a file that is being received; gone after the block unless taken."""
        folder = self._uploads / secrets.token_hex(16)
        await asyncio.to_thread(folder.mkdir, mode=0o700, parents=True)
        try:
            yield folder / "upload"
        finally:
            if not (folder / "taken").exists():
                await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    async def add(
        self, owner: str, source: Path, *, declared: str, name: str, consent: str
    ) -> Listed:
        """Judge a file and begin to make an avatar of it.

        Args:
            owner: whose it will be.
            source: the file, of ``upload``.
            declared: type that the client gave it.
            name: for people.
            consent: who agreed to the use of their face, and how.

        Returns:
            The avatar, whose ``status`` and ``progress`` move on.

        Raises:
            UsageError: no name or consent.
            MediaError: the file is refused.
            OverloadedError: too many avatars are being made.
        """
        name, consent = " ".join(name.split()), " ".join(consent.split())
        if not 0 < len(name) <= _MAX_NAME or not name.isprintable():
            raise UsageError(f"an avatar's name has 1 to {_MAX_NAME} printable characters")
        if not 0 < len(consent) <= _MAX_CONSENT or not consent.isprintable():
            raise UsageError(
                "whose face is it, and did they agree to this?",
                remedy=f"say so in the field consent, in up to {_MAX_CONSENT} characters",
            )
        self._making.check_room(owner)
        await judge(source, declared, self._settings)
        identity = secrets.token_hex(16)
        listed = Listed(identity, name, "preparing", 0.0, owner=owner, consent=consent)
        await asyncio.to_thread((source.parent / "taken").touch)
        self._making.begin(listed, source)
        return listed

    async def delete(self, owner: str, identity: str) -> None:
        """Delete an avatar and all that was made of its file; stop its preparation.

        Raises:
            NotFoundError: there is none, or it is somebody else's.
            UsageError: the caller may use it, but not delete it.
        """
        listed = await self.get(owner, identity)
        if not listed.is_deletable_by(owner):
            raise UsageError("this avatar is everybody's and cannot be deleted here")
        await self._making.stop(identity)
        await asyncio.to_thread(self._erase, identity)
        self._gallery.forget(identity)

    async def avatar(self, owner: str, identity: str) -> Avatar:
        """A ready avatar with its frames.

        Raises:
            MuseTalkError: there is none, it is not ready, or cannot be read.
        """
        return await self._renderer.avatar(await self.usable(owner, identity))

    async def poster(self, owner: str, identity: str) -> bytes:
        """Its first frame as a JPEG; errors as ``avatar``."""
        return await self._gallery.poster(await self.usable(owner, identity))

    async def sheet(self, owner: str, identity: str) -> bytes:
        """Frames with face box and mask drawn in, as a JPEG; errors as ``avatar``."""
        avatar = await self.avatar(owner, identity)

        def draw() -> bytes:
            _, jpeg = cv2.imencode(".jpg", contact_sheet(avatar))
            return jpeg.tobytes()

        return await asyncio.to_thread(draw)

    async def preview(self, owner: str, identity: str) -> Path:
        """A short silent MP4 of the avatar that says nothing; errors as ``avatar``."""
        avatar = await self.avatar(owner, identity)
        output = self._previews / f"{identity}-{avatar.id[:16]}.mp4"
        async with self._encoding:
            if not output.exists():
                fps = avatar.fps
                count = min(2 * len(avatar), _PREVIEW_SECONDS * fps)
                provenance = self._renderer.provenance(avatar, recorded=True)
                async with Mp4Writer(
                    output,
                    width=avatar.width,
                    height=avatar.height,
                    fps=fps,
                    provenance=provenance,
                    preset=LIVE,
                    silent=True,
                ) as writer:
                    for number in range(count):
                        index = source_index(avatar, number, fps)
                        await writer.write([await asyncio.to_thread(avatar.frame, index)])
                    await writer.finish()
        return output

    async def close(self) -> None:
        """Stop all preparations."""
        await self._making.close()

    def _erase(self, identity: str) -> None:
        with contextlib.suppress(NotFoundError):
            known = self._gallery.store.about(identity)
            self._gallery.store.remove(identity)
            if known is not None:
                prepared_path(self._settings, known.id).unlink(missing_ok=True)
        for preview in self._previews.glob(f"{identity}-*.mp4"):
            preview.unlink(missing_ok=True)


def _remove_stale(folder: Path) -> None:
    """Uploads that a process left behind that was killed."""
    for left in folder.glob("*"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(left, ignore_errors=True)


@asynccontextmanager
async def open_library(settings: Settings, renderer: Renderer) -> AsyncIterator[Library]:
    """The avatars of a service; preparations stop at the end of the block.

    Args:
        settings: of the process.
        renderer: prepares and finds avatars.
    """
    await asyncio.to_thread(_remove_stale, settings.cache_dir / "uploads")
    library = Library(settings, renderer)
    try:
        yield library
    finally:
        await library.close()

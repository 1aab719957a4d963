"""The avatars as callers see them: whose they are, how far one is, adding and deleting.

An avatar that is added here has an id that cannot be guessed; its title is for people. Avatars
that the operator added on the command line have no owner: everybody may use them.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging
import secrets
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import cv2

from orchestrator.avatars.avatar import Avatar
from orchestrator.avatars.sheet import contact_sheet
from orchestrator.avatars.uploads import judge
from orchestrator.errors import (
    ConflictError,
    MuseTalkError,
    NotFoundError,
    OverloadedError,
    UsageError,
)
from orchestrator.rendering.encode import Mp4Writer
from orchestrator.rendering.gallery import DRAWN
from orchestrator.rendering.presets import LIVE
from orchestrator.rendering.render import source_index
from orchestrator.rendering.tasks import end, within

if TYPE_CHECKING:
    from orchestrator.rendering.renderer import Renderer
    from orchestrator.settings import Settings

LOG: Final = logging.getLogger("musetalk.avatars")

LOCAL: Final = "local"
"""Owner of what is added to a service without keys."""

_WAITING: Final = 8
_WAITING_EACH: Final = 2
_FAILED_SECONDS: Final = 3600.0
_PREPARE_SECONDS: Final = 1800.0
_PREVIEW_SECONDS: Final = 4
_MAX_NAME: Final = 64
_MAX_CONSENT: Final = 500
_STALE_SECONDS: Final = 24 * 3600.0

Status = Literal["preparing", "ready", "failed"]


@dataclass
class Listed:
    """One avatar of the list.

    Attributes:
        id: to ask for it.
        name: for people.
        status: how far it is.
        progress: of its preparation, 0 to 1.
        owner: whose it is; None: everybody's.
        portrait: it comes along with the project.
        width: of the frames; None: not known yet.
        height: likewise.
        fps: of the frames.
        frames: how many.
        consent: who agreed to the use of their face, and how.
        notes: what preparation changed or noticed.
        error: why it failed.
    """

    id: str
    name: str
    status: Status = "ready"
    progress: float = 1.0
    owner: str | None = None
    portrait: bool = False
    width: int | None = None
    height: int | None = None
    fps: int | None = None
    frames: int | None = None
    consent: str = ""
    notes: list[str] = field(default_factory=list)
    error: MuseTalkError | None = None

    def is_for(self, owner: str) -> bool:
        """Whether a caller may see and use it."""
        return self.owner in (None, owner)

    def is_deletable_by(self, owner: str) -> bool:
        """Whether a caller may delete it: their own; on a machine without keys, all but ours."""
        return not self.portrait and (owner == LOCAL or self.owner == owner)


@dataclass
class _Making:
    listed: Listed
    task: asyncio.Task[None] | None = None
    ended: float | None = None


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
        self._making: dict[str, _Making] = {}
        self._one = asyncio.Lock()
        self._encoding = asyncio.Lock()
        self._uploads = settings.cache_dir / "uploads"
        self._previews = settings.cache_dir / "previews"

    async def visible(self, owner: str) -> list[Listed]:
        """The avatars that a caller may use, portraits first."""
        self._forget_failures()
        ready = await asyncio.to_thread(self._ready)
        made = [making.listed for making in self._making.values()]
        shown = {listed.id: listed for listed in [*made, *ready] if listed.is_for(owner)}
        return sorted(shown.values(), key=lambda one: (not one.portrait, one.name.lower(), one.id))

    async def get(self, owner: str, identity: str) -> Listed:
        """One of them.

        Raises:
            NotFoundError: there is none with this id, or it is somebody else's.
        """
        making = self._making.get(identity)
        listed = making.listed if making else await asyncio.to_thread(self._find, identity)
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
        self._forget_failures()
        running = [one.listed.owner for one in self._making.values() if one.ended is None]
        if len(running) >= _WAITING or running.count(owner) >= _WAITING_EACH:
            raise OverloadedError(
                f"{len(running)} avatars are being prepared", remedy="wait until they are ready"
            )
        await judge(source, declared, self._settings)
        identity = secrets.token_hex(16)
        listed = Listed(identity, name, "preparing", 0.0, owner=owner, consent=consent)
        making = self._making[identity] = _Making(listed)
        await asyncio.to_thread((source.parent / "taken").touch)
        making.task = asyncio.create_task(self._make(making, source), name=f"avatar-{identity[:6]}")
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
        making = self._making.pop(identity, None)
        if making is not None and making.task is not None:
            await end(making.task)
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
        return (await self.avatar(owner, identity)).jpegs[0]

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
        await end(*(one.task for one in self._making.values() if one.task is not None))

    async def _make(self, making: _Making, source: Path) -> None:
        """Prepare, store, forget the upload; errors end in ``listed.error``."""
        listed = making.listed

        def moved(part: float) -> None:
            listed.progress = round(min(part, 0.99), 3)

        avatar: Avatar | None = None
        try:
            async with self._one:
                avatar = await within(
                    self._renderer.avatar_of_file(
                        source, name=listed.id, consent=listed.consent, progress=moved
                    ),
                    _PREPARE_SECONDS,
                )
            metadata = {**avatar.metadata, "title": listed.name, "owner": listed.owner}
            metadata["source"] = "upload"
            stored = dataclasses.replace(avatar, metadata=metadata)
            await asyncio.to_thread(self._gallery.store.add, stored)
            self._making.pop(listed.id, None)
            LOG.info("avatar %s: ready, %d frames", listed.id[:6], len(avatar))
        except MuseTalkError as error:
            self._failed(making, error)
        except TimeoutError:
            self._failed(making, MuseTalkError("the preparation took too long"))
        except Exception:
            LOG.exception("avatar %s: unforeseen error", listed.id[:6])
            self._failed(making, MuseTalkError("an unforeseen error; the log has it"))
        finally:
            await asyncio.shield(asyncio.to_thread(self._tidy, source.parent, avatar))

    def _failed(self, making: _Making, error: MuseTalkError) -> None:
        LOG.info("avatar %s: %s: %s", making.listed.id[:6], error.code, error)
        making.listed.status, making.listed.error = "failed", error
        making.ended = time.monotonic()

    def _tidy(self, folder: Path, avatar: Avatar | None) -> None:
        """Remove the upload, and the copy that preparation keeps to spare work."""
        shutil.rmtree(folder, ignore_errors=True)
        if avatar is not None:
            self._prepared(avatar.id).unlink(missing_ok=True)

    def _erase(self, identity: str) -> None:
        with contextlib.suppress(NotFoundError):
            known = self._gallery.store.about(identity)
            self._gallery.store.remove(identity)
            if known is not None:
                self._prepared(known.id).unlink(missing_ok=True)
        for preview in self._previews.glob(f"{identity}-*.mp4"):
            preview.unlink(missing_ok=True)

    def _prepared(self, key: str) -> Path:
        return self._settings.cache_dir / "prepared" / f"{key}.npz"

    def _forget_failures(self) -> None:
        now = time.monotonic()
        for identity, making in [*self._making.items()]:
            if making.ended is not None and now - making.ended > _FAILED_SECONDS:
                del self._making[identity]

    def _ready(self) -> list[Listed]:
        own = self._gallery.store.list()
        names = [*own, *(name for name in self._gallery.portraits if name not in own)]
        return [listed for name in names if (listed := self._find(name)) is not None]

    def _find(self, identity: str) -> Listed | None:
        """A stored avatar or a portrait; None: there is none. Never a path of the client's."""
        if identity in self._gallery.store.list():
            known = self._gallery.store.about(identity)
            if known is None:
                return None
            about = known.metadata
            return Listed(
                identity,
                str(about.get("title", known.name)),
                owner=about.get("owner"),
                width=known.width,
                height=known.height,
                fps=known.fps,
                frames=known.frames,
                consent=str(about.get("consent", "")),
                notes=[str(note) for note in about.get("notes", [])],
            )
        path = self._gallery.portraits.get(identity)
        if path is None:
            return None
        listed = Listed(identity, identity.capitalize(), portrait=True, consent=DRAWN)
        described = path.with_suffix(".json")
        if described.is_file():
            about = json.loads(described.read_text())
            _describe(listed, about)
        return listed


def _describe(listed: Listed, about: dict[str, Any]) -> None:
    listed.name = about.get("title", listed.name)
    listed.width, listed.height = about.get("width"), about.get("height")
    listed.fps, listed.frames = about.get("fps"), about.get("frames")


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

"""Avatars in the making: one at a time, in the background, failures kept for a while."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from orchestrator.avatars.avatar import Avatar
from orchestrator.avatars.prepare import prepared_path
from orchestrator.errors import MuseTalkError, OverloadedError
from orchestrator.rendering.listing import Listed
from orchestrator.rendering.tasks import end, within

if TYPE_CHECKING:
    from orchestrator.rendering.renderer import Renderer
    from orchestrator.settings import Settings

LOG: Final = logging.getLogger("musetalk.avatars")

_WAITING: Final = 8
_WAITING_EACH: Final = 2
_FAILED_SECONDS: Final = 3600.0
_PREPARE_SECONDS: Final = 1800.0


@dataclass
class _Making:
    listed: Listed
    task: asyncio.Task[None] | None = None
    ended: float | None = None


class Making:
    """Prepares avatars of uploads and stores them.

    Args:
        settings: of the process.
        renderer: prepares.
    """

    def __init__(self, settings: Settings, renderer: Renderer) -> None:
        self._settings = settings
        self._renderer = renderer
        self._making: dict[str, _Making] = {}
        self._one = asyncio.Lock()

    def listed(self) -> list[Listed]:
        """Those that are being made, and those that failed not long ago."""
        self._forget_failures()
        return [making.listed for making in self._making.values()]

    def find(self, identity: str) -> Listed | None:
        """One of them; None: it is none of them."""
        making = self._making.get(identity)
        return making.listed if making else None

    def check_room(self, owner: str) -> None:
        """Refuse one more avatar of an owner while too many are being made.

        Raises:
            OverloadedError: that is so.
        """
        self._forget_failures()
        running = [one.listed.owner for one in self._making.values() if one.ended is None]
        if len(running) >= _WAITING or running.count(owner) >= _WAITING_EACH:
            raise OverloadedError(
                f"{len(running)} avatars are being prepared", remedy="wait until they are ready"
            )

    def begin(self, listed: Listed, source: Path) -> None:
        """Make an avatar in the background.

        Args:
            listed: told how far it is, and why it failed.
            source: the upload; its folder is removed in the end.
        """
        making = self._making[listed.id] = _Making(listed)
        making.task = asyncio.create_task(
            self._make(making, source), name=f"avatar-{listed.id[:6]}"
        )

    async def stop(self, identity: str) -> None:
        """Forget one, and end its preparation."""
        making = self._making.pop(identity, None)
        if making is not None and making.task is not None:
            await end(making.task)

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
            await asyncio.to_thread(self._renderer.gallery.store.add, stored)
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
            prepared_path(self._settings, avatar.id).unlink(missing_ok=True)

    def _forget_failures(self) -> None:
        now = time.monotonic()
        for identity, making in [*self._making.items()]:
            if making.ended is not None and now - making.ended > _FAILED_SECONDS:
                del self._making[identity]

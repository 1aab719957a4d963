"""The avatars that can be asked for by name: the portraits that come along, and the user's own."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final

from orchestrator.avatars.avatar import Avatar
from orchestrator.avatars.media import first_frame
from orchestrator.avatars.prepare import prepare_avatar, with_current_latents
from orchestrator.avatars.store import AvatarFile, AvatarStore
from orchestrator.errors import NotFoundError
from orchestrator.inference import Inference
from orchestrator.rendering.live import forget_idle_clip
from orchestrator.settings import Settings

PORTRAITS: Final = Path(__file__).parent.parent / "avatars" / "portraits"
"""Drawn people that come with the project: prepared (``.npz``), or a picture or clip."""

DRAWN: Final = "a drawing; no real person is shown"
_KINDS: Final = (".npz", ".mp4", ".png")


def avatar_store(settings: Settings) -> AvatarStore:
    """The user's own avatars on this machine."""
    return AvatarStore(settings.cache_dir / "avatars")


def portraits(folder: Path = PORTRAITS) -> dict[str, Path]:
    """The portraits that come along, by name; a prepared one before a clip of the same name."""
    found: dict[str, Path] = {}
    for kind in reversed(_KINDS):
        found |= {path.stem: path for path in sorted(folder.glob(f"*{kind}"))}
    return dict(sorted(found.items()))


class Gallery:
    """Avatars whose latents fit the weights that the server runs; each in memory once.

    Args:
        settings: of the process.
        inference: Triton.
        store: the user's own avatars; they win over portraits of the same name.
        folder: of the portraits.
    """

    def __init__(
        self,
        settings: Settings,
        inference: Inference,
        store: AvatarStore,
        folder: Path = PORTRAITS,
    ) -> None:
        self._settings = settings
        self._inference = inference
        self._store = store
        self._portraits = portraits(folder)
        self._current: dict[str, tuple[Avatar | None, Avatar]] = {}
        self._posters: dict[str, bytes] = {}
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    def names(self) -> list[str]:
        """Names, sorted."""
        return sorted({*self._store.list(), *self._portraits})

    @property
    def portraits(self) -> dict[str, Path]:
        """The portraits that come along, by name, the first one the default avatar."""
        return self._portraits

    @property
    def store(self) -> AvatarStore:
        """The user's own avatars."""
        return self._store

    def forget(self, name: str) -> None:
        """Keep an avatar that was deleted no longer in memory."""
        _, avatar = self._current.pop(name, (None, None))
        if avatar is not None:
            forget_idle_clip(avatar.id)

    async def get(
        self, name: str | None, progress: Callable[[float], None] | None = None
    ) -> Avatar:
        """Find an avatar; the first call for one may have to prepare it.

        Args:
            name: of the avatar; None takes the first portrait, else the first of the user's own.
            progress: told the part that is done, 0 to 1, if it has to be prepared.

        Raises:
            NotFoundError: there is no such avatar, or none at all.
            MuseTalkError: it cannot be read or prepared.
        """
        own = await asyncio.to_thread(self._store.list)
        if name is None:
            name = next(iter([*self._portraits, *own]), None)
            if name is None:
                raise NotFoundError("there is no avatar yet", remedy="musetalk avatar add FILE")
        if name not in own and name not in self._portraits:
            raise self._unknown(name, own)
        async with self._locks[name]:  # one that is prepared holds up no other
            stored = await asyncio.to_thread(self._store.get, name) if name in own else None
            known_source, current = self._current.get(name, (None, None))
            if current is None or known_source is not stored:
                source = stored or await self._portrait(name, progress)
                current = await with_current_latents(source, self._inference)
                self._current[name] = (stored, current)
            return current

    async def poster(self, name: str) -> bytes:
        """The first frame of an avatar as a JPEG; nothing is prepared for it.

        A page that shows all faces asks for all posters: to prepare each avatar for that would
        take the machine from whoever is spoken to.

        Raises:
            NotFoundError: there is no such avatar.
            MuseTalkError: it cannot be read.
        """
        own = await asyncio.to_thread(self._store.list)
        if name in own:
            return (await asyncio.to_thread(self._store.get, name)).jpegs[0]
        if (path := self._portraits.get(name)) is None:
            raise self._unknown(name, own)
        if path.suffix != ".mp4":
            return (await self.get(name)).jpegs[0]
        if name not in self._posters:
            self._posters[name] = await first_frame(path, self._settings)
        return self._posters[name]

    def _unknown(self, name: str, own: Collection[str]) -> NotFoundError:
        known = ", ".join(sorted({*own, *self._portraits})) or "none"
        return NotFoundError(f"there is no avatar {name!r}", remedy=f"there are: {known}")

    async def _portrait(self, name: str, progress: Callable[[float], None] | None) -> Avatar:
        path = self._portraits[name]
        if path.suffix == ".npz":
            avatar = await asyncio.to_thread(AvatarFile(path).read)
            if avatar is None:
                raise NotFoundError(f"the portrait {path} is gone", remedy="install again")
            return avatar
        return await prepare_avatar(
            path,
            inference=self._inference,
            settings=self._settings,
            name=name,
            consent=DRAWN,
            progress=progress,
        )

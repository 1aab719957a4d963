"""Avatars on disk: one file each, written whole or not at all."""

from __future__ import annotations

import json
import os
import re
import tempfile
import threading
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from orchestrator.avatars.avatar import Avatar
from orchestrator.avatars.masks import BlendMask
from orchestrator.errors import NotFoundError, SetupError, UsageError

_DAMAGED: Final = (
    *(OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile),
)
_NAME: Final = re.compile(r"[\w][\w .-]{0,63}")


def _join(parts: list[bytes]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    ends = np.cumsum([len(part) for part in parts], dtype=np.int64)
    return np.frombuffer(b"".join(parts), np.uint8), ends


@dataclass(frozen=True)
class AvatarHeader:
    """What an avatar's file says of it; see ``Avatar``."""

    id: str
    name: str
    width: int
    height: int
    fps: int
    frames: int
    metadata: dict[str, Any]


class AvatarFile:
    """One avatar in one ``.npz``: JPEG frames, fp16 latents, masks without their zeros."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, avatar: Avatar) -> None:
        """Write it by one rename.

        Raises:
            SetupError: the folder cannot be written, or the disk is full.
        """
        frames, frame_ends = _join(list(avatar.jpegs))
        masks, mask_ends = _join([mask.alpha.tobytes() for mask in avatar.masks])
        places = [(mask.x0, mask.y0, *mask.alpha.shape) for mask in avatar.masks]
        header = {
            "id": avatar.id,
            "name": avatar.name,
            "width": avatar.width,
            "height": avatar.height,
            "fps": avatar.fps,
            "metadata": avatar.metadata,
        }
        temporary = None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(
                dir=self.path.parent, prefix=".", suffix=".part", delete=False
            ) as file:
                temporary = Path(file.name)
                np.savez(
                    file,
                    header=np.frombuffer(json.dumps(header).encode(), np.uint8),
                    frames=frames,
                    frame_ends=frame_ends,
                    latents=avatar.latents,
                    boxes=avatar.boxes,
                    squares=avatar.squares,
                    masks=masks,
                    mask_ends=mask_ends,
                    mask_places=np.array(places, np.int32),
                )
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.path)
        except OSError as error:
            if temporary is not None:
                temporary.unlink(missing_ok=True)
            raise SetupError(
                f"{self.path.parent} cannot be written: {error.strerror}",
                remedy="free some space, or set MUSETALK_CACHE_DIR",
            ) from error

    def about(self) -> AvatarHeader | None:
        """What it says of itself, without its frames; None when it is not there.

        Raises:
            SetupError: the file is damaged.
        """
        try:
            with np.load(self.path) as data:
                header = json.loads(data["header"].tobytes())
                return AvatarHeader(frames=len(data["boxes"]), **header)
        except FileNotFoundError:
            return None
        except _DAMAGED as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> SetupError:
        return SetupError(
            f"{self.path} is damaged: {error}", remedy="delete it and add the avatar again"
        )

    def read(self) -> Avatar | None:
        """Read it; None when it is not there.

        Raises:
            SetupError: the file is damaged.
        """
        try:
            with np.load(self.path) as data:
                header = json.loads(data["header"].tobytes())
                frames, ends = data["frames"].tobytes(), data["frame_ends"].tolist()
                jpegs = [frames[a:b] for a, b in zip([0, *ends], ends, strict=False)]
                alphas = data["masks"]
                masks = []
                start = 0
                for end, place in zip(data["mask_ends"], data["mask_places"], strict=True):
                    x0, y0, height, width = (int(value) for value in place)
                    alpha = alphas[start : int(end)].reshape(height, width)
                    masks.append(BlendMask(x0, y0, alpha))
                    start = int(end)
                return Avatar(
                    jpegs=tuple(jpegs),
                    latents=data["latents"],
                    boxes=data["boxes"],
                    squares=data["squares"],
                    masks=tuple(masks),
                    **header,
                )
        except FileNotFoundError:
            return None
        except _DAMAGED as error:
            raise self._damaged(error) from error


class AvatarStore:
    """Named avatars in a folder; each is in memory once, whoever uses it."""

    def __init__(self, directory: Path) -> None:
        """Describe the store; the folder is made when something is added."""
        self.directory = directory
        self._loaded: dict[str, tuple[int, Avatar]] = {}
        self._lock = threading.Lock()

    def _file(self, name: str) -> AvatarFile:
        if not _NAME.fullmatch(name):
            raise UsageError(
                f"{name!r} cannot be the name of an avatar",
                remedy="use letters, digits, space, dot, hyphen; at most 64",
            )
        return AvatarFile(self.directory / f"{name}.npz")

    def about(self, name: str) -> AvatarHeader | None:
        """What the avatar of a name says of itself; None: there is none.

        Raises:
            UsageError: that cannot be a name.
            SetupError: its file is damaged.
        """
        return self._file(name).about()

    def list(self) -> list[str]:
        """Names, sorted."""
        return sorted(path.stem for path in self.directory.glob("[!.]*.npz"))

    def add(self, avatar: Avatar) -> None:
        """Keep an avatar under its name; an older one of that name is replaced.

        Raises:
            UsageError: a name that cannot be used.
            SetupError: it cannot be written.
        """
        self._file(avatar.name).write(avatar)

    def get(self, name: str) -> Avatar:
        """The avatar of a name, the same object for every caller until it is replaced.

        Raises:
            NotFoundError: there is none.
            SetupError: its file is damaged.
        """
        file = self._file(name)
        with self._lock:
            try:
                version = file.path.stat().st_mtime_ns
            except OSError:
                version = -1
            known = self._loaded.get(name)
            if known is not None and known[0] == version:
                return known[1]
            avatar = file.read()
            if avatar is None:
                self._loaded.pop(name, None)
                raise NotFoundError(
                    f"there is no avatar {name!r}",
                    remedy=f"there are: {', '.join(self.list()) or 'none'}",
                )
            self._loaded[name] = (version, avatar)
            return avatar

    def remove(self, name: str) -> None:
        """Delete an avatar.

        Raises:
            NotFoundError: there is none.
        """
        try:
            self._file(name).path.unlink()
        except FileNotFoundError:
            raise NotFoundError(
                f"there is no avatar {name!r}",
                remedy=f"there are: {', '.join(self.list()) or 'none'}",
            ) from None
        with self._lock:
            self._loaded.pop(name, None)

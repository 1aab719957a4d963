"""How an avatar stands in the list that callers see: whose it is, how far it is, what it shows."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from orchestrator.errors import MuseTalkError
from orchestrator.rendering.gallery import DRAWN, Gallery

LOCAL: Final = "local"
"""Owner of what is added to a service without keys."""

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


def ready_avatars(gallery: Gallery) -> list[Listed]:
    """All that can be used now, stored ones and portraits."""
    own = gallery.store.list()
    names = [*own, *(name for name in gallery.portraits if name not in own)]
    return [listed for name in names if (listed := find_listed(gallery, name)) is not None]


def find_listed(gallery: Gallery, identity: str) -> Listed | None:
    """A stored avatar or a portrait; None: there is none. Never a path of the client's.

    Args:
        gallery: the avatars.
        identity: of one.
    """
    if identity in gallery.store.list():
        known = gallery.store.about(identity)
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
    path = gallery.portraits.get(identity)
    return None if path is None else portrait_listed(identity, path)


def portrait_listed(name: str, path: Path) -> Listed:
    """A portrait that comes along.

    Args:
        name: of the portrait.
        path: of its clip; what is known of it lies beside it.
    """
    listed = Listed(name, name.capitalize(), portrait=True, consent=DRAWN)
    described = path.with_suffix(".json")
    if described.is_file():
        about = json.loads(described.read_text())
        listed.name = about.get("title", listed.name)
        listed.width, listed.height = about.get("width"), about.get("height")
        listed.fps, listed.frames = about.get("fps"), about.get("frames")
    return listed

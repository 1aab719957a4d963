"""The ways a session can be rendered, chosen when it begins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from orchestrator.errors import UsageError


@dataclass(frozen=True)
class Profile:
    """How finely a session is rendered.

    Attributes:
        name: of the profile.
        grid: frames a second of the time grid that audio windows belong to.
        stride: every n-th frame of the grid is rendered and shown.
        first_batch: frames in requests for frames that are needed soon, as at a turn's start.
        batch: frames in other requests, at most what the server's ``lipsync`` takes.
        token_limit: longest reply, if the operator allows longer ones; None has no limit.
    """

    name: str
    grid: int
    stride: int
    first_batch: int
    batch: int
    token_limit: int | None

    @property
    def fps(self) -> float:
        """Frames shown in a second."""
        return self.grid / self.stride

    def max_tokens(self, allowed: int) -> int:
        """Length of a reply, where the operator allows ``allowed`` tokens."""
        return allowed if self.token_limit is None else min(allowed, self.token_limit)


QUALITY: Final = Profile("quality", grid=25, stride=1, first_batch=4, batch=8, token_limit=None)
ECONOMY: Final = Profile("economy", grid=25, stride=2, first_batch=2, batch=4, token_limit=100)
CLASSIC: Final = Profile("classic", grid=15, stride=1, first_batch=2, batch=2, token_limit=100)
"""What MuseTalk's real-time demo does: 15 frames a second, two at a time."""

PROFILES: Final = {profile.name: profile for profile in (QUALITY, ECONOMY, CLASSIC)}


def find_profile(name: str | None) -> Profile:
    """A profile by its name; None is ``quality``.

    Raises:
        UsageError: there is none of that name.
    """
    try:
        return PROFILES[name] if name is not None else QUALITY
    except KeyError as error:
        raise UsageError(
            f"there is no profile {name[:40]!r}" if name else "the profile has no name",
            remedy=f"choose one of {', '.join(PROFILES)}",
        ) from error

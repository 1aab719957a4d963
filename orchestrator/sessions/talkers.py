"""Who may talk: admission of turns, before any work is done for them."""

from __future__ import annotations

import math
from time import monotonic
from typing import Final

from orchestrator.errors import OverloadedError, StoppingError
from orchestrator.sessions.profiles import ECONOMY, Profile

_FULL_FPS: Final = 25
_TURN_SECONDS: Final = 5.0


def load(profile: Profile) -> float:
    """Work of a talking session, in talkers of 25 pictures a second."""
    return profile.fps / _FULL_FPS


class Place:
    """A talker's place; to be given back once."""

    def __init__(self, talkers: Talkers, profile: Profile) -> None:
        self.profile = profile
        """How the turn may be rendered; lower than asked for where little is left."""
        self._talkers = talkers
        self._since = monotonic()
        self._held = True

    def give_back(self) -> None:
        """The turn makes no work any more; a second time means nothing."""
        if self._held:
            self._held = False
            self._talkers._free(self.profile, monotonic() - self._since)


class Talkers:
    """A bounded amount of speech at a time.

    Args:
        limit: talkers of 25 pictures a second that can be rendered at a time.

    Attributes:
        limit: likewise; a lower one sends nobody away who talks already.
    """

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self._load = 0.0
        self._count = 0
        self._usual_seconds = _TURN_SECONDS
        self._closed = False

    def close(self) -> None:
        """Let nobody begin any more; those who talk go on to their end."""
        self._closed = True

    def require_open(self) -> None:
        """Refuse when turns may not begin any more.

        Raises:
            StoppingError: the service is about to stop.
        """
        if self._closed:
            raise StoppingError(
                "this server is about to stop", remedy="connect again; the conversation goes on"
            )

    @property
    def count(self) -> int:
        """Sessions that talk."""
        return self._count

    def admit(self, wanted: Profile) -> Place:
        """Take a place for a turn.

        Args:
            wanted: the session's profile. Where it is too much but ``economy`` is not, a place
                for that is given: same frame grid, half the pictures.

        Raises:
            OverloadedError: there is no place.
            StoppingError: the service is about to stop.
        """
        self.require_open()
        profiles = [wanted, ECONOMY] if wanted.grid == ECONOMY.grid else [wanted]
        for profile in profiles:
            if self._load + load(profile) <= self.limit + 1e-6:
                self._load += load(profile)
                self._count += 1
                return Place(self, profile)
        raise OverloadedError(
            "as many avatars talk as this machine can render",
            remedy=f"try again in {self.retry_after} s",
        )

    @property
    def retry_after(self) -> int:
        """Seconds after which a place is likely to be free."""
        return max(1, math.ceil(self._usual_seconds / max(1, self._count)))

    def _free(self, profile: Profile, seconds: float) -> None:
        self._load -= load(profile)
        self._count -= 1
        self._usual_seconds += 0.2 * (seconds - self._usual_seconds)

"""How many live sessions each key has, over whichever interface."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from orchestrator.api.access import Access, Caller
from orchestrator.errors import OverloadedError

if TYPE_CHECKING:
    from orchestrator.sessions.registry import Sessions
    from orchestrator.sessions.session import Session


class LivePlaces:
    """Remembers whose the sessions are.

    Args:
        access: has the limits.
    """

    def __init__(self, access: Access) -> None:
        self._access = access
        self._owners: WeakKeyDictionary[Session, str] = WeakKeyDictionary()

    def require(self, sessions: Sessions, caller: Caller, resumed: str | None) -> None:
        """Refuse a key that has as many sessions as it may.

        Args:
            sessions: all of the process.
            caller: who wants one more.
            resumed: id of the session that it goes on with, if any.

        Raises:
            OverloadedError: it has.
        """
        limits = self._access.limits(caller.id)
        if limits is None:
            return
        mine = [
            session
            for session, owner in self._owners.items()
            if owner == caller.id and session.id != resumed and sessions.has(session)
        ]
        if len(mine) >= limits.sessions:
            raise OverloadedError(
                f"this key has {limits.sessions} sessions already", remedy="leave one first"
            )

    def note(self, session: Session, caller: Caller) -> None:
        """Remember whose a session is."""
        self._owners[session] = caller.id

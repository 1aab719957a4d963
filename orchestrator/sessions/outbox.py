"""Messages with media on their way to one client: numbered, few at a time, kept until received."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final, Literal

from orchestrator.sessions.round_trip import RoundTrip

WINDOW: Final = 3
"""Messages that a client nearby may not have acknowledged yet."""

_SHORTEST_MESSAGE: Final = 0.1
"""Seconds of media; on a long way so many more may be under way that it does not run dry."""

Kind = Literal["init", "idle", "speech"]


@dataclass(frozen=True)
class MediaMessage:
    """One ``media`` event.

    Attributes:
        sequence: number in the session, from 0.
        kind: what it holds.
        data: bytes of the MP4.
        start: first moment on the timeline, in seconds.
        duration: in seconds; 0 for ``init``.
    """

    sequence: int
    kind: Kind
    data: bytes
    start: float
    duration: float

    @property
    def end(self) -> float:
        """Last moment on the timeline, in seconds."""
        return self.start + self.duration


class Outbox:
    """Sends in order, and again what a client that was away did not get."""

    def __init__(self) -> None:
        self._next = 0
        self._unsent: deque[MediaMessage] = deque()
        self._unconfirmed: deque[MediaMessage] = deque()
        self._round_trip = RoundTrip()

    def __len__(self) -> int:
        """Messages that wait to be sent."""
        return len(self._unsent)

    @property
    def unconfirmed(self) -> int:
        """Messages sent and not acknowledged."""
        return len(self._unconfirmed)

    @property
    def round_trip(self) -> float:
        """Seconds after which the confirmation of a message can be here."""
        return self._round_trip.seconds

    def push(self, kind: Kind, data: bytes, start: float = 0.0, duration: float = 0.0) -> None:
        """Add a message at the end."""
        self._unsent.append(MediaMessage(self._next, kind, data, start, duration))
        self._next += 1

    def take(self, now: float) -> MediaMessage | None:
        """The next message to send now; None when there is none, or the client must confirm."""
        window = WINDOW + int(self.round_trip / _SHORTEST_MESSAGE)
        if not self._unsent or len(self._unconfirmed) >= window:
            return None
        message = self._unsent.popleft()
        self._unconfirmed.append(message)
        self._round_trip.sent(message.sequence, now)
        return message

    def confirm(self, sequence: int, now: float) -> None:
        """The client has a message; numbers that are not on their way mean nothing."""
        self._round_trip.confirmed(sequence, now)
        self._unconfirmed = deque(
            message for message in self._unconfirmed if message.sequence != sequence
        )

    def drop_from(self, position: float) -> None:
        """Forget what waits and starts at ``position`` or later: it was cut off."""
        self._unsent = deque(
            message
            for message in self._unsent
            if message.kind == "init" or message.start < position
        )

    def reaches(self, last_sequence: int) -> bool:
        """Whether all that a client lacks, which has everything up to a number, is still here."""
        kept = [*self._unconfirmed, *self._unsent]
        first = kept[0].sequence if kept else self._next
        return first - 1 <= last_sequence < self._next

    def resume(self, last_sequence: int) -> None:
        """The client is back and has all messages up to a number: send the others again."""
        kept = [*self._unconfirmed, *self._unsent]
        self._unsent = deque(message for message in kept if message.sequence > last_sequence)
        self._unconfirmed.clear()
        self._round_trip.restart()

    def clear(self) -> None:
        """Forget everything but the numbering."""
        self._unsent.clear()
        self._unconfirmed.clear()
        self._round_trip.restart()

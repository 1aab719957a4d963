"""What a session tells its viewer, apart from the media."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from orchestrator.errors import MuseTalkError
    from orchestrator.sessions.outbox import MediaMessage
    from orchestrator.sessions.times import TurnTimes
    from orchestrator.speech.fallback import Switch

State = Literal["idle", "thinking", "speaking"]


class Client(Protocol):
    """The connection to a viewer; what is sent arrives in order, or the connection ends."""

    def emit(self, event: str, payload: dict[str, Any]) -> None:
        """Send an event."""
        ...

    def media(self, message: MediaMessage) -> None:
        """Send media; ``Session.confirm`` is called when it has arrived."""
        ...

    def hang_up(self) -> None:
        """Close the connection."""
        ...


class Events:
    """Events of one session, to whoever is connected; what nobody hears is lost."""

    def __init__(self) -> None:
        self.client: Client | None = None

    def emit(self, event: str, payload: dict[str, Any]) -> None:
        """Send an event, if there is somebody to send it to."""
        if self.client is not None:
            self.client.emit(event, payload)

    def state(self, state: State, turn: str | None) -> None:
        """What the session does now, and the id of its turn."""
        self.emit("state", {"state": state, "turn": turn})

    def progress(self, turn: str, stage: str, percent: int) -> None:
        """How far a stage of a turn is."""
        self.emit("progress", {"turn": turn, "stage": stage, "percent": percent})

    def transcript(
        self, turn: str, role: str, index: int, text: str, start: float, stop: float
    ) -> None:
        """What somebody says, from and to which second of the media."""
        line = {"turn": turn, "role": role, "index": index, "text": text}
        self.emit("transcript", {**line, "start": round(start, 4), "end": round(stop, 4)})

    def performance(self, turn: str, times: TurnTimes) -> None:
        """How long the stages of a turn took."""
        self.emit("performance", {"turn": turn, **times.report()})

    def error(self, turn: str, error: MuseTalkError) -> None:
        """A turn failed."""
        self.emit("error", {**describe(error), "turn": turn})

    def switched(self, turn: str, switch: Switch) -> None:
        """Another voice speaks than the one that was chosen."""
        told = {
            "code": "voice_switched",
            "message": f"{switch.spoken_by} speaks in place of {switch.chosen}",
            "remedy": switch.error.remedy,
            "retryable": False,
            "turn": turn,
        }
        self.emit("error", told)

    def flush(self, position: float) -> None:
        """The media from a position on, in seconds, does not count any more."""
        self.emit("flush", {"from_pts": position})


def describe(error: MuseTalkError) -> dict[str, Any]:
    """An error as clients get it."""
    return {
        "code": error.code,
        "message": error.message,
        "remedy": error.remedy,
        "retryable": error.retryable,
    }

"""A viewer of a live session: speaks the Socket.IO protocol and plays in real time, on paper.

It keeps what a browser's player would keep, so that the received stream can be judged, and says
at each moment how far its player is and whether that ran dry.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import socketio  # type: ignore[import-untyped]

from loadtests.received import Player
from orchestrator.rendering.tasks import end

_REPORT_SECONDS: Final = 0.25
_TICK: Final = 1e-4


@dataclass(frozen=True)
class Received:
    """One ``media`` event.

    Attributes:
        at: when it came, on the monotonic clock.
        position: of the player then, in seconds of the timeline.
        waited: seconds since the message before that the player had nothing to show.
    """

    sequence: int
    kind: str
    start: float
    duration: float
    data: bytes
    at: float
    position: float
    waited: float = 0.0

    @property
    def end(self) -> float:
        """Last moment on the timeline."""
        return self.start + self.duration


@dataclass
class Viewer:
    """One viewer.

    Attributes:
        url: of the service.
        options: of ``join``: avatar, profile, language.
        auth: of the connection: ``{"key": …}``.
        media: all media that came.
        end: how far the player has media, in seconds of the timeline.
        flushed: seconds of media that it was told to drop.
        events: everything else that came: when, name, payload.
        joined: the answer to ``join``.
        stalls: seconds that the player had nothing to show.
        problems: what broke the protocol.
        late_cuts: seconds of what had been cut off that were shown before the cut was heard of.
    """

    url: str
    options: dict[str, Any] = field(default_factory=dict)
    auth: dict[str, str] | None = None
    media: list[Received] = field(default_factory=list)
    end: float = 0.0
    flushed: float = 0.0
    events: list[tuple[float, str, dict[str, Any]]] = field(default_factory=list)
    joined: dict[str, Any] = field(default_factory=dict)
    stalls: float = 0.0
    problems: list[str] = field(default_factory=list)
    late_cuts: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Nothing is connected yet."""
        self._socket: Any = None
        self._lost = asyncio.Event()
        self._reports: asyncio.Task[None] | None = None
        self._player = Player()
        self._position = 0.0
        self._ticked: float | None = None
        self._last = -1
        self._new_line = True
        self._stalled = 0.0
        self._changed = asyncio.Condition()
        self._wakes: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Viewer:
        """Connect and join."""
        await self.connect()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Leave, if that is still possible."""
        if self._socket is not None and self._socket.connected:
            await self.call("leave")
        await self.disconnect()

    async def connect(self, *, resume: bool = False) -> dict[str, Any]:
        """Connect and join, or come back to the session that was there.

        Raises:
            ConnectionError: the server refused; the answer says why.
        """
        self._socket = socketio.AsyncClient(reconnection=False)
        for event in ("state", "progress", "transcript", "performance", "error", "flush"):
            self._socket.on(event, self._keep(event))
        self._socket.on("media", self._on_media)
        self._lost = lost = asyncio.Event()
        self._socket.on("disconnect", lambda *_: lost.set())
        self._new_line = True
        await self._socket.connect(self.url, transports=["websocket"], auth=self.auth)
        asked = dict(self.options)
        if resume:
            asked |= {"session": self.joined["session"], "token": self.joined["token"]}
            asked["last_sequence"] = self._last
        answer = await self.call("join", asked, timeout=60)
        if not answer["ok"]:
            await self.disconnect()
            raise ConnectionError(answer["error"])
        self.joined = answer
        self._reports = asyncio.create_task(self._report())
        return answer

    async def disconnect(self) -> None:
        """Hang up without a word."""
        if self._reports is not None:
            self._reports.cancel()
            await asyncio.gather(self._reports, return_exceptions=True)
            self._reports = None
        if self._socket is not None:
            await self._socket.disconnect()
            self._socket = None

    async def call(self, event: str, payload: Any = None, timeout: float = 20) -> dict[str, Any]:
        """Send an event and wait for the answer.

        Raises:
            ConnectionError: the connection was lost before it came.
            socketio.exceptions.SocketIOError: there is no connection, or no answer in time.
        """
        # The library waits for an answer for its whole time-out even where the line is dead.
        answer = asyncio.ensure_future(self._socket.call(event, payload or {}, timeout=timeout))
        lost = asyncio.ensure_future(self._lost.wait())
        try:
            await asyncio.wait({answer, lost}, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                raise ConnectionError(f"the connection was lost before {event} was answered")
            return dict(answer.result())
        finally:
            await end(answer, lost)

    async def begin(self, event: str, payload: dict[str, Any]) -> str:
        """Begin a turn.

        Returns:
            Its id.

        Raises:
            ConnectionError: it was refused; the answer says why.
        """
        answer = await self.call(event, payload)
        if not answer["ok"]:
            raise ConnectionError(answer["error"])
        return str(answer["turn"])

    async def until(self, condition: Callable[[], Any], timeout: float = 30) -> Any:
        """Wait until something that came makes a condition true; returns its value.

        Raises:
            TimeoutError: it did not.
        """

        async def waiting() -> Any:
            async with self._changed:
                return await self._changed.wait_for(condition)

        return await asyncio.wait_for(waiting(), timeout)

    def of(self, event: str, turn: str | None = None) -> list[dict[str, Any]]:
        """Payloads of an event, of one turn or all."""
        return [
            payload
            for _, name, payload in self.events
            if name == event and (turn is None or payload.get("turn") == turn)
        ]

    async def performance(self, turn: str, timeout: float = 60) -> dict[str, Any]:
        """What a turn reports at its end."""
        found = await self.until(lambda: self.of("performance", turn), timeout)
        return dict(found[0])

    async def idle_again(self, turn: str, timeout: float = 60) -> None:
        """Wait until the session is idle after a turn."""

        def idle() -> bool:
            states = [
                (name, payload)
                for _, name, payload in self.events
                if name in ("state", "performance")
            ]
            ended = any(name == "performance" and p["turn"] == turn for name, p in states)
            return ended and states[-1][0] == "state" and states[-1][1]["state"] == "idle"

        await self.until(idle, timeout)

    @property
    def position(self) -> float:
        """Where the player is, in seconds of the timeline."""
        now = time.monotonic()
        if self._ticked is not None:
            wanted = self._position + now - self._ticked
            self._position = min(wanted, max(self.end, self._position))
            self.stalls += wanted - self._position
            self._ticked = now
        return self._position

    @property
    def init(self) -> bytes:
        """The init segment."""
        return self._player.init

    def stream(self) -> bytes:
        """The MP4 that the player has."""
        return self._player.stream()

    def forget(self) -> None:
        """Keep the init segment only: a viewer that stays for hours must not fill the memory."""
        self.media.clear()
        self.events.clear()
        self.problems.clear()
        self.late_cuts.clear()
        self._player.held.clear()

    def _keep(self, event: str) -> Callable[[dict[str, Any]], None]:
        def keep(payload: dict[str, Any]) -> None:
            if event == "flush":
                self._flush(payload["from_pts"])
            self.events.append((time.monotonic(), event, payload))
            self._wake()

        return keep

    def _flush(self, begin: float) -> None:
        if begin < self.position - _TICK:
            self.late_cuts.append(self.position - begin)
        self.flushed += max(0.0, self.end - begin)
        self.end = min(self.end, begin)
        self._player.remove_from(begin)

    def _on_media(self, message: dict[str, Any]) -> None:
        if self._new_line and message["sequence"] == 0:
            # A new player: what the old one had is no part of this stream.
            self._last, self._ticked = -1, None
        self._new_line = False
        position = self.position
        if message["sequence"] <= self._last:
            self.problems.append(f"sequence {message['sequence']} after {self._last}")
        self._last = message["sequence"]
        waited, self._stalled = self.stalls - self._stalled, self.stalls
        received = Received(**message, at=time.monotonic(), position=position, waited=waited)
        if received.kind == "init":
            self._player = Player()
            self._player.init = received.data
        else:
            self._player.append(received.data)
            if self._ticked is None:
                self._position, self._ticked = received.start, received.at
            elif abs(received.start - self.end) > _TICK:
                self.problems.append(f"media at {received.start:.3f} after {self.end:.3f}")
            self.end = received.end
        self.media.append(received)
        self._wake()

    def _wake(self) -> None:
        async def wake() -> None:
            async with self._changed:
                self._changed.notify_all()

        task = asyncio.ensure_future(wake())
        self._wakes.add(task)
        task.add_done_callback(self._wakes.discard)

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(_REPORT_SECONDS)
            position = self.position
            report = {"time": position, "buffered": max(0.0, self.end - position)}
            await self._socket.emit("playhead", report)

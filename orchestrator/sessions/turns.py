"""The turns of one session, one at a time: begun, carried out, given up, reported, remembered."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from orchestrator.errors import DeadlineError, MuseTalkError, NotFoundError, OverloadedError
from orchestrator.logs import bound
from orchestrator.rendering.tasks import end, within
from orchestrator.sessions.mouths import Pace
from orchestrator.sessions.running import RunningTurn, equip
from orchestrator.tracing import mark_failed, span

if TYPE_CHECKING:
    from orchestrator.avatars.avatar import Avatar
    from orchestrator.sessions.events import Events, State
    from orchestrator.sessions.memory import Memory
    from orchestrator.sessions.outbox import MediaMessage
    from orchestrator.sessions.playout import Playout
    from orchestrator.sessions.profiles import Profile
    from orchestrator.sessions.shared import Shared
    from orchestrator.sessions.turn import Tools

LOG: Final = logging.getLogger("musetalk.sessions")

_END_SECONDS: Final = 10.0


class Turns:
    """What a session is doing.

    Args:
        avatar: who speaks.
        profile: how finely.
        memory: of the conversation; what was heard of each turn is added.
        playout: takes the media.
        events: tell the viewer.
        shared: what all sessions work with.

    Attributes:
        current: the turn that the viewer waits for or looks at.
        state: what the viewer sees.
    """

    def __init__(
        self,
        avatar: Avatar,
        profile: Profile,
        memory: Memory,
        playout: Playout,
        events: Events,
        shared: Shared,
    ) -> None:
        self.current: RunningTurn | None = None
        self.state: State = "idle"
        self._avatar = avatar
        self._profile = profile
        self._memory = memory
        self._playout = playout
        self._events = events
        self._shared = shared
        self._paces: dict[int, Pace] = {}
        self._over = False

    def require_life(self) -> None:
        """Refuse what comes after the session's end.

        Raises:
            NotFoundError: the session is over.
        """
        if self._over:
            raise NotFoundError("the session is over", remedy="join again")

    @property
    def halted(self) -> float:
        """Seconds for which the viewer's player has not moved in the turn that runs."""
        if self.current is None:
            return 0.0
        return min(self._playout.halted(), self.current.times.elapsed)

    async def begin(self) -> RunningTurn:
        """A new turn in the place of the one that runs; `run` lets it do something.

        Raises:
            OverloadedError: too many talk at a time.
            StoppingError: the service is about to stop; another one goes on.
            NotFoundError: the session is over.
        """
        self._shared.talkers.require_open()  # before a turn that runs is given up for this one
        await self.interrupt()
        self.require_life()
        try:
            place = self._shared.talkers.admit(self._profile)
        except OverloadedError:
            self._shared.telemetry.live.refusals.inc()
            raise
        self.current = turn = RunningTurn(place, self._shared.scheduler)
        self._enter("thinking", turn)
        self._playout.expect_speech()
        return turn

    def tools(self, turn: RunningTurn, tokens: int) -> Tools:
        """What a turn works with; its longest reply, 0 without a language model."""
        conversation = self._memory.conversation
        return equip(
            turn,
            self._avatar,
            conversation.language,
            owner=conversation.id,
            tokens=tokens,
            pace=lambda stride: self._paces.setdefault(stride, Pace(stride)),
            stage=self._playout,
            events=self._events,
            shared=self._shared,
        )

    def run(self, turn: RunningTurn, work: Callable[[], Awaitable[None]]) -> None:
        """Let a turn do its work, in a task of its own."""
        task = asyncio.create_task(self._observed(turn, work), name=f"turn-{turn.id}")
        # Also when it is cancelled before its first step.
        task.add_done_callback(lambda _: turn.give_back())
        turn.task = task

    async def interrupt(self, result: str = "interrupted") -> None:
        """End the turn that runs; the viewer sees no more of it than is about to be shown."""
        turn = self.current
        if turn is None:
            return
        self.current = None
        if turn.task is not None:
            turn.task.cancel()
        position = await within(self._playout.interrupt(), _END_SECONDS)
        await self._bury(turn, position, result)
        self._enter("idle", None)

    async def give_up(self) -> None:
        """End the turn that runs, whose viewer's player stands still: others need its place."""
        if self.current is not None:
            error = DeadlineError(
                f"the player has not moved for {self.halted:.0f} s: the turn is over",
                remedy="let it play, and ask again",
            )
            self._fail(self.current, error)
            await self.interrupt(error.code)

    async def close(self) -> None:
        """End the turn that runs, and take no other; what was heard of it is remembered."""
        self._over = True
        turn, self.current = self.current, None
        if turn is not None:
            await self._bury(turn, self._playout.position, "interrupted")

    def sent(self, message: MediaMessage) -> None:
        """The viewer gets this media now."""
        turn = self.current
        if message.kind == "speech" and turn is not None and not turn.sounding:
            turn.sounding = True
            turn.times.reached("frame")
            self._enter("speaking", turn)

    def tell(self) -> None:
        """Say what the session does to a viewer who was away, and may have missed it."""
        self._events.state(self.state, None if self.current is None else self.current.id)

    async def _bury(self, turn: RunningTurn, position: float, result: str) -> None:
        if turn.task is not None:
            await end(turn.task)
        self._memory.spoken(turn.spoken, position)
        if not turn.ended:
            self._report(turn, result)

    async def _observed(self, turn: RunningTurn, work: Callable[[], Awaitable[None]]) -> None:
        """The turn, with its name on log lines and a span of its own."""
        session = self._memory.conversation.id[:6]
        with bound(session=session, turn=turn.id), span("turn", profile=self._profile.name):
            turn.times.belongs_here()
            await self._carry_out(turn, work)

    async def _carry_out(self, turn: RunningTurn, work: Callable[[], Awaitable[None]]) -> None:
        """A turn from its request to the moment at which the viewer has seen it.

        Whatever fails ends the turn, not the session.
        """
        result = "ok"
        try:
            await work()
        except MuseTalkError as error:
            result = error.code
            self._fail(turn, error)
        except Exception:
            result = "internal"
            LOG.exception("turn %s: unforeseen error", turn.id)
            self._fail(turn, MuseTalkError("an unforeseen error; the log has it", remedy=""))
        position = await self._finished(turn)
        turn.give_back()
        if turn.progress is not None and result == "ok":
            turn.progress.complete("encoding")
        self._report(turn, result)
        await self._playout.played(position)
        if self.current is turn:
            self.current = None
            self._memory.spoken(turn.spoken, position)
            self._enter("idle", None)

    async def _finished(self, turn: RunningTurn) -> float:
        """The end of the turn's speech, when all of it is media."""
        try:
            with turn.times.waiting():
                return await self._playout.finish()
        except MuseTalkError as error:
            self._fail(turn, error)
            return self._playout.position

    def _fail(self, turn: RunningTurn, error: MuseTalkError) -> None:
        LOG.warning("turn %s: %s", turn.id, error.code)
        mark_failed(error.code)
        self._shared.telemetry.live.errors.labels(error.code).inc()
        self._events.error(turn.id, error)

    def _enter(self, state: State, turn: RunningTurn | None) -> None:
        self.state = state
        self._events.state(state, None if turn is None else turn.id)

    def _report(self, turn: RunningTurn, result: str) -> None:
        """All media of the turn is made, or none will be any more."""
        turn.ended = True
        turn.times.wall = turn.times.elapsed
        self._shared.telemetry.live.turn_ended(result, turn.times)
        self._events.performance(turn.id, turn.times)

"""The first words of a turn go before everything that can wait."""

from __future__ import annotations

from contextlib import ExitStack

from orchestrator.inference.schedule import Scheduler


class Haste:
    """Hurries one turn, once: from its first sentence until it has a head start.

    Args:
        scheduler: orders the requests of all sessions.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._hurry = ExitStack()
        self._begun = False

    @property
    def others(self) -> bool:
        """Whether another turn hurries."""
        return self._scheduler.hurried

    def begin(self) -> None:
        """There is something to say and nothing to show yet."""
        if not self._begun:
            self._begun = True
            self._hurry.enter_context(self._scheduler.hurry())

    def end(self) -> None:
        """The turn has its head start, or is over."""
        self._begun = True
        self._hurry.close()

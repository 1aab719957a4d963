"""Two speech engines: the second one speaks what the first one could not begin."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from orchestrator.errors import MuseTalkError, SpeechError, UsageError
from orchestrator.rendering.tasks import within
from orchestrator.speech.tts import SpeechChunk, SpeechSynthesizer

LOG: Final = logging.getLogger("musetalk.speech")

_REST_SECONDS: Final = 30.0
"""For how long an engine that failed is not asked: each sentence would wait for it again."""

_START_FACTOR: Final = 4
"""An engine that has not spoken yet may have to start: it gets so many times the patience."""


@dataclass(frozen=True)
class Switch:
    """A sentence was spoken by another engine than the chosen one.

    Attributes:
        chosen: name of the engine that failed.
        spoken_by: name of the one that speaks instead.
        error: why.
    """

    chosen: str
    spoken_by: str
    error: MuseTalkError


OnSwitch = Callable[[Switch], None]


@dataclass
class _Health:
    """How the first engine is, as all sessions found it.

    Attributes:
        spoke: it has made a sound since the start.
        rests_until: before that it is not asked.
        error: why.
    """

    spoke: bool = False
    rests_until: float = 0.0
    error: MuseTalkError | None = None


class FallbackSynthesizer:
    """A ``SpeechSynthesizer`` over two others.

    Nothing is said twice: once a sentence has begun to sound, its failure is an error.

    Args:
        primary: the chosen engine.
        secondary: speaks a sentence of which the first one gave no sound.
        on_switch: told each time that happens.
        patience: seconds that the first engine has for the first sound of a sentence; four
            times that for its first sentence, for which it may have to start.
    """

    def __init__(
        self,
        primary: SpeechSynthesizer,
        secondary: SpeechSynthesizer,
        on_switch: OnSwitch | None = None,
        *,
        patience: float = 5.0,
    ) -> None:
        self._primary = primary
        self._secondary = secondary
        self._on_switch = on_switch or log_switch
        self._patience = patience
        self._health = _Health()

    @property
    def name(self) -> str:
        """The chosen engine's."""
        return self._primary.name

    def told(self, on_switch: OnSwitch) -> FallbackSynthesizer:
        """The same engines for one session, which hears of its own switches.

        Only the original is closed, not this view of it.
        """
        view = FallbackSynthesizer(
            self._primary, self._secondary, on_switch, patience=self._patience
        )
        view._health = self._health
        return view

    async def synthesize(
        self, text: str, *, language: str | None = None
    ) -> AsyncGenerator[SpeechChunk, None]:
        """Speak a text with whichever engine can.

        Raises:
            MuseTalkError: what the first engine raises, where the second one fails too or the
                text has begun to sound.
        """
        failure = self._health.error if time.monotonic() < self._health.rests_until else None
        if failure is None:
            chunks = self._primary.synthesize(text, language=language)
            async with aclosing(chunks):
                try:
                    yield await self._first(chunks)
                except MuseTalkError as error:
                    failure = error
                else:
                    async for chunk in chunks:
                        yield chunk
                    return
            if not isinstance(failure, UsageError):
                self._health.rests_until = time.monotonic() + _REST_SECONDS
                self._health.error = failure
        switched = False
        instead = self._secondary.synthesize(text, language=language)
        async with aclosing(instead):
            try:
                async for chunk in instead:
                    if not switched:
                        switched = True
                        self._on_switch(Switch(self._primary.name, self._secondary.name, failure))
                    yield chunk
            except MuseTalkError as error:
                if switched:
                    raise
                raise failure from error

    async def close(self) -> None:
        """Close both engines."""
        await asyncio.gather(self._primary.close(), self._secondary.close())

    async def _first(self, chunks: AsyncGenerator[SpeechChunk, None]) -> SpeechChunk:
        """The first sound.

        Raises:
            SpeechError: it did not come in time, or the text ended without one.
        """
        patience = self._patience * (1 if self._health.spoke else _START_FACTOR)
        try:
            chunk = await within(_advance(chunks), patience)
        except TimeoutError as error:
            raise SpeechError(
                f"{self._primary.name} made no sound within {patience:g} s"
            ) from error
        if chunk is None:
            raise SpeechError(f"{self._primary.name} made no sound")
        self._health.spoke = True
        return chunk


def log_switch(switch: Switch) -> None:
    """Say in the log that a sentence was spoken by the other engine; not which sentence."""
    LOG.warning("%s speaks in place of %s: %s", switch.spoken_by, switch.chosen, switch.error.code)


async def _advance(chunks: AsyncGenerator[SpeechChunk, None]) -> SpeechChunk | None:
    return await anext(chunks, None)

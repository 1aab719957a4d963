"""One turn of a live session as a viewer lives it, and the figures of that."""

from __future__ import annotations

import asyncio
import math
import random
import re
import time
from dataclasses import dataclass
from typing import Any, Final

import socketio  # type: ignore[import-untyped]

from loadtests.figures import Turn
from loadtests.received import parse
from loadtests.tones import decode, frequency, listen, tone
from loadtests.viewer import Received, Viewer
from orchestrator.rendering.live.fmp4 import TICKS

SENTENCES: Final = (
    "The train to the coast leaves every hour, and the last one is rarely full.",
    "Please bring a warm jacket, because the evenings are still cold in the hills.",
    "My favourite part of the city is the old market behind the station.",
    "We have three rooms left, two of them with a view over the river.",
    "If you like music, there is a small concert in the park on Sunday.",
)
REQUESTS: Final = ("say", "speech", "ask", "interrupt")

BREAKS: Final = (
    *(socketio.exceptions.SocketIOError, OSError, TimeoutError, asyncio.TimeoutError, ValueError),
)
"""What a viewer's turn, its coming and its going can fail with."""
TURN_SECONDS: Final = 50.0
"""Of about ten seconds of speech: a turn that takes longer has failed."""

_TONE_SECONDS: Final = 2.0
_PIECE: Final = 32_000
_HEARD_SECONDS: Final = 1.0


@dataclass(frozen=True)
class Speaker:
    """A viewer that takes turns.

    Attributes:
        number: of the user; decides its tone and its word.
        viewer: joined.
        rng: chooses what it says.
    """

    number: int
    viewer: Viewer
    rng: random.Random

    async def turn(self, request: str) -> Turn:
        """One turn, from the request until the avatar is idle again.

        Args:
            request: one of ``REQUESTS``.

        Raises:
            ConnectionError: it was refused, or the connection broke.
            socketio.exceptions.SocketIOError: the service does not answer.
            TimeoutError: it does not end.
            ValueError: its sound cannot be decoded.
        """
        try:
            return await asyncio.wait_for(self._turn(request), TURN_SECONDS)
        except (TimeoutError, asyncio.TimeoutError) as error:
            raise TimeoutError(f"the turn did not end within {TURN_SECONDS:g} s") from error

    async def _turn(self, request: str) -> Turn:
        viewer = self.viewer
        viewer.forget()
        word = f"Number {self.number}."
        text = " ".join([*self.rng.sample(SENTENCES, 2), word])
        began = time.monotonic()
        if request == "speech":
            turn = await self._recording()
        else:
            turn = await viewer.begin("ask" if request == "ask" else "say", {"text": text})
        figures: dict[str, float] = {}
        if request == "interrupt":
            figures["time_to_silence"] = await self._interrupted()
        report = await viewer.performance(turn, TURN_SECONDS)
        await viewer.idle_again(turn, TURN_SECONDS)
        spoken = [media for media in viewer.media if media.kind == "speech"]
        if not spoken or (errors := viewer.of("error", turn)):
            why = str(errors[0]["message"]) if spoken else "nothing was spoken"
            return Turn(time.time(), self.number, "live", request, error=why)
        fps = float(viewer.joined["fps"])
        figures |= timing(spoken, began, fps)
        for name in ("first_audio", "real_time_factor"):
            if report[name] is not None:
                figures[name] = float(report[name])
        if (voice := report["stages"].get("tts")) is not None:
            # The voice begins when the first piece of text is complete, whoever wrote it how fast.
            figures["first_frame_after_text"] = figures["first_frame"] - float(voice["start"])
        marker = None
        if request == "speech":
            marker, offset = await own_tone(viewer, spoken, frequency(self.number))
            figures |= {} if offset is None else {"sound_offset": offset}
        elif request != "interrupt":
            # Of any turn: another viewer's words would come under another one than this.
            said = " ".join(
                line["text"] for line in viewer.of("transcript") if line["role"] == "avatar"
            )
            marker = set(re.findall(r"Number \d+\.", said)) == {word}
        frames = int(report["frames"])
        # A frame is late when the server put an older mouth in its place, or the player waited.
        late = int(report["frames_late"]) + math.ceil(sum(m.waited for m in spoken) * fps - 0.5)
        return Turn(
            *(time.time(), self.number, "live", request, frames, min(frames, max(0, late))),
            figures=figures,
            marker=marker,
            error="; ".join(
                viewer.problems[-3:]
                + [f"cut {seconds:.3f} s late" for seconds in viewer.late_cuts[-3:]]
            ),
            reduced=int(report["frames_reduced"]),
        )

    async def _recording(self) -> str:
        pcm = tone(frequency(self.number), _TONE_SECONDS).tobytes()
        turn = ""
        for start in range(0, len(pcm), _PIECE):
            final = start + _PIECE >= len(pcm)
            piece = {"audio": pcm[start : start + _PIECE], "final": final}
            turn = await self.viewer.begin("speech", piece)
        return turn

    async def _interrupted(self) -> float:
        """Interrupt when some of the speech was heard; seconds until the player is silent."""
        viewer = self.viewer

        def spoken() -> Received | None:
            return next((media for media in viewer.media if media.kind == "speech"), None)

        first = await viewer.until(spoken, TURN_SECONDS)
        await asyncio.sleep(max(0.0, first.start - viewer.position) + _HEARD_SECONDS)
        began = time.monotonic()
        answer = await viewer.call("interrupt")
        if not answer["ok"]:
            raise ConnectionError(answer["error"])
        flushes = [(at, told) for at, name, told in viewer.events if name == "flush"]
        later = [(at, told) for at, told in flushes if at >= began]
        if not later:
            return time.monotonic() - began
        at, told = later[-1]
        return at - began + max(0.0, float(told["from_pts"]) - viewer.position)


def timing(spoken: list[Received], began: float, fps: float) -> dict[str, float]:
    """First frame and largest frame gap, as the player showed them.

    Args:
        spoken: media of the turn.
        began: when it was asked for, on the monotonic clock.
        fps: frames a second.
    """
    first = spoken[0]
    shown = first.at + max(0.0, first.start - first.position)
    gap = 1 / fps + max((media.waited for media in spoken[1:]), default=0.0)
    return {"first_frame": shown - began, "frame_gap": gap}


async def own_tone(
    viewer: Viewer, spoken: list[Received], hertz: float
) -> tuple[bool, float | None]:
    """Whether a turn sounds like its tone alone, and how late sound is against picture.

    Returns:
        The former; seconds from the turn's first picture to its first sound, None without any.
    """
    held = [parse(media.data) for media in spoken]
    sounding = next((one.audio for one in held if one.audio.samples), None)
    if sounding is None:
        return False, None
    heard = listen(await decode(viewer.init + b"".join(media.data for media in spoken)))
    if heard.onset is None:
        return False, None
    return heard.only(hertz), sounding.start / TICKS + heard.onset - spoken[0].start


def refusal(error: Exception) -> dict[str, Any] | None:
    """What admission control answered, if that is what an error is about."""
    told = error.args[0] if isinstance(error, ConnectionError) and error.args else None
    return told if isinstance(told, dict) and "retry_after" in told else None

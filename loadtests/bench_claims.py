"""The gains that the project's first notes claimed, measured end to end on today's system.

Each claim is measured as a ratio of whole renders, text to MP4, in one run on one machine; runs
of the two sides alternate, so that a machine that slows down slows both.
"""

from __future__ import annotations

import io
import statistics
import time
import wave
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from orchestrator.rendering.provenance import Provenance
from orchestrator.rendering.render import RenderOptions
from orchestrator.rendering.script import Text
from orchestrator.rendering.timings import StageTimes
from orchestrator.rendering.video import speak_to_file
from orchestrator.replies.sentences import split_sentences
from orchestrator.speech.decode import decode_audio
from orchestrator.speech.tts import SpeechSynthesizer

if TYPE_CHECKING:
    from orchestrator.avatars.avatar import Avatar
    from orchestrator.inference import Inference

I16 = npt.NDArray[np.int16]

_WORDS_PER_TOKEN: Final = 0.75
_REPLY: Final = (
    "Thank you for asking. The weather will change this week. Tomorrow starts with sunshine in "
    "most places. Clouds move in from the west during the afternoon. By the evening there is "
    "light rain along the coast. On Wednesday the rain reaches the hills. It may turn to snow "
    "above a thousand metres. The wind grows stronger on Thursday. Please keep a jacket at hand "
    "when you travel. The weekend looks much better. Saturday is dry and mild, with a few clouds. "
    "Sunday should be the warmest day of the month. Farmers will be glad, because the fields are "
    "still wet. If you plan a walk, take the morning. I will tell you more as soon as I know it."
)
"""About 150 tokens of a language model."""


@dataclass(frozen=True)
class ClaimRow:
    """One claim and what was measured.

    Attributes:
        claim: what changes.
        claimed: percent of the time that it was said to save.
        before: seconds of a render without the change.
        after: seconds with it.
        note: what else the change does.
    """

    claim: str
    claimed: float
    before: float
    after: float
    note: str

    @property
    def measured(self) -> float:
        """Percent of the time saved; negative where it costs time."""
        return (1 - self.after / self.before) * 100


async def claims(
    avatar: Avatar,
    inference: Inference,
    voice: SpeechSynthesizer,
    *,
    weights: str,
    runs: int = 3,
) -> list[ClaimRow]:
    """Measure all four claims.

    Args:
        avatar: who speaks.
        inference: Triton with a whole repository.
        voice: speaks the texts.
        weights: identifier of the weights, for the files' metadata.
        runs: renders of each side of a claim; the median counts.
    """
    with TemporaryDirectory(prefix="musetalk-bench-") as folder:
        output = Path(folder) / "out.mp4"

        async def render(text: str, options: RenderOptions) -> float:
            times = StageTimes()
            await speak_to_file(
                avatar,
                Text(split_sentences(text)).utterances(voice, times),
                output,
                inference=inference,
                options=options,
                provenance=Provenance("MuseTalk v1.5", weights, avatar.name, voice.name),
                times=times,
            )
            return times.wall

        short = _tokens(_REPLY, 40)
        await render(_tokens(_REPLY, 10), RenderOptions())
        rate = await _compare(
            lambda: render(short, RenderOptions(fps=25)),
            lambda: render(short, RenderOptions(fps=15)),
            runs,
        )
        batch = await _compare(
            lambda: render(short, RenderOptions(batch=4)),
            lambda: render(short, RenderOptions(batch=2)),
            runs,
        )
        tokens = await _compare(
            lambda: render(_tokens(_REPLY, 150), RenderOptions()),
            lambda: render(_tokens(_REPLY, 100), RenderOptions()),
            max(1, runs // 2),
        )
        conversion = await _conversion_seconds(voice, short, runs)
    return [
        ClaimRow("25 to 15 frames a second", 30, *rate, "40 % fewer frames, visibly less smooth"),
        ClaimRow("batch of 4 to 2", 20, *batch, "in throughput; a first frame may come sooner"),
        ClaimRow(
            "faster audio conversion",
            5,
            rate[0] + conversion,
            rate[0],
            "upper bound: conversion that takes no time at all",
        ),
        ClaimRow("150 to 100 tokens", 15, *tokens, "a third less is said"),
    ]


def _tokens(text: str, count: int) -> str:
    """The beginning of a text, to the nearest word."""
    return " ".join(text.split()[: round(count * _WORDS_PER_TOKEN)])


async def _compare(
    before: Callable[[], Awaitable[float]], after: Callable[[], Awaitable[float]], runs: int
) -> tuple[float, float]:
    """Median seconds of both, taken in turns."""
    pairs = [(await before(), await after()) for _ in range(runs)]
    return statistics.median(p[0] for p in pairs), statistics.median(p[1] for p in pairs)


async def _conversion_seconds(voice: SpeechSynthesizer, text: str, runs: int) -> float:
    """Median time of ffmpeg from a WAV file of the speech to 16 kHz mono samples."""
    pieces: list[I16] = []
    rate = 0
    async for chunk in voice.synthesize(text):
        pieces.append(chunk.pcm)
        rate = chunk.rate
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.concatenate(pieces).astype("<i2").tobytes())
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        await decode_audio(buffer.getvalue(), max_seconds=600, max_bytes=1 << 28)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)

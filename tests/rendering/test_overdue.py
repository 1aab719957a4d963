"""Frames whose mouths come too late, one by one rather than a batch at a time."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from orchestrator.rendering.render import Chunk, Overdue, RenderOptions, render_frames
from orchestrator.rendering.timings import StageTimes
from orchestrator.speech.features import speech_features

U8 = npt.NDArray[np.uint8]
CENTRE = (32, 48)


async def rendered(
    avatar: Any, inference: Any, faces: Any, first_batch: int | None = None, **how: Any
) -> tuple[list[Chunk], StageTimes]:
    features = await speech_features(inference, np.full(16000, 100, np.int16), 25)
    times = StageTimes()
    options = RenderOptions(batch=8, first_batch=first_batch)
    chunks = render_frames(avatar, features, faces=faces, options=options, times=times, **how)
    return [chunk async for chunk in chunks], times


@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("lost", [2, 6])
async def test_the_rest_of_a_late_batch_is_shown(
    avatar: Any, inference: Any, step: int, lost: int
) -> None:
    async def faces(first: int, latents: Any, audio: Any, overdue: Overdue) -> U8:
        made = await inference.lipsync(latents[::step], audio[::step])
        if first == 8:
            for _ in range(lost // 2):
                overdue.give_up(2)
                await asyncio.sleep(0.02)
        return np.asarray(made)

    chunks, times = await rendered(avatar, inference, faces)
    frames = [int(frame[CENTRE][2]) for chunk in chunks for frame in chunk.frames]
    own = [2 * (i // step * step) + 1 for i in range(25)]
    assert frames == [*own[:8], *[own[7]] * lost, *own[8 + lost :]]
    assert sum(chunk.late for chunk in chunks) == lost == times.idle
    assert times.generated == 25 - lost


@pytest.mark.parametrize("seen", [0.0, 0.02])
async def test_a_batch_that_never_comes_in_time(avatar: Any, inference: Any, seen: float) -> None:
    async def faces(first: int, latents: Any, audio: Any, overdue: Overdue) -> U8 | None:
        if first == 0:
            overdue.give_up(8)
            await asyncio.sleep(seen)
            return None
        return np.asarray(await inference.lipsync(latents, audio))

    chunks, _ = await rendered(avatar, inference, faces)
    assert all(chunk.frames for chunk in chunks)
    assert [(len(chunk.frames), chunk.late) for chunk in chunks] == [(8, 8), (8, 0), (8, 0), (1, 0)]
    assert chunks[0].last_face is None and np.array_equal(chunks[0].frames[0], avatar.frame(0))


@pytest.mark.parametrize(
    ("soon", "sizes"),
    [
        (lambda frame: frame < 8, [4, 4, 8, 8, 1]),
        (lambda frame: 8 <= frame < 20, [8, 4, 4, 4, 5]),
        (lambda _: True, [4, 4, 4, 4, 4, 4, 1]),
        (None, [4, 4, 4, 4, 8, 1]),
    ],
)
async def test_what_is_needed_soon_waits_for_few_others(
    avatar: Any, inference: Any, soon: Any, sizes: list[int]
) -> None:
    asked: list[int] = []

    async def faces(first: int, latents: Any, audio: Any, overdue: Overdue) -> U8:
        assert first == sum(asked)
        asked.append(len(latents))
        return np.asarray(await inference.lipsync(latents, audio))

    chunks, _ = await rendered(avatar, inference, faces, first_batch=4, needed_soon=soon)
    assert asked == sizes == [len(chunk.frames) for chunk in chunks]

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from orchestrator.errors import (
    BadInputError,
    MediaError,
    ServerDiedError,
    UnavailableError,
)
from orchestrator.rendering.prefetch import prefetch
from orchestrator.rendering.render import (
    FADE_FRAMES,
    IN_FLIGHT,
    RenderOptions,
    idle_frames,
    render_speech,
)
from orchestrator.rendering.timings import StageTimes

U8 = npt.NDArray[np.uint8]
I16 = npt.NDArray[np.int16]
CENTRE = (32, 48)
CORNER = (0, 0)


def speech(seconds: float) -> I16:
    return np.full(round(seconds * 16000), 100, np.int16)


async def render(
    avatar: Any, inference: Any, seconds: float, first_frame: int = 0, **options: Any
) -> tuple[list[U8], StageTimes]:
    times = StageTimes()
    frames: list[U8] = []
    async for chunk in render_speech(
        avatar,
        speech(seconds),
        inference=inference,
        options=RenderOptions(**options),
        times=times,
        first_frame=first_frame,
    ):
        frames += chunk.frames
    return frames, times


@pytest.mark.parametrize(("fps", "batch"), [(25, 8), (25, 1), (12, 4), (49, 8), (8, 3)])
async def test_every_frame_once_in_order(avatar: Any, inference: Any, fps: int, batch: int) -> None:
    frames, times = await render(avatar, inference, 2.01, fps=fps, batch=batch)
    count = int(2.01 * fps)
    assert len(frames) == times.generated == count
    # Token 20 is step 4 of the window, the step of the frame's own moment; see FakeInference.
    assert [int(frame[CENTRE][2]) for frame in frames] == [50 * i // fps + 1 for i in range(count)]
    assert inference.batches == [batch] * (count // batch) + [count % batch] * bool(count % batch)


async def test_the_avatar_moves_at_its_own_speed(avatar: Any, inference: Any) -> None:
    cycle = [0, 1, 2, 3, 4, 4, 3, 2, 1, 0]
    for fps in (25, 15, 40):
        frames, _ = await render(avatar, inference, 1.0, first_frame=3, fps=fps)
        expected = [cycle[(3 + i) * 25 // fps % 10] for i in range(fps)]
        assert [int(frame[CORNER][0]) // 10 for frame in frames] == expected


async def test_latents_and_frames_are_those_of_the_same_moment(avatar: Any, inference: Any) -> None:
    frames, _ = await render(avatar, inference, 1.0, first_frame=7)
    assert inference.latents == [int(frame[CORNER][0]) / 10 for frame in frames]


async def test_a_bounded_number_of_batches_is_on_its_way(avatar: Any, make_inference: Any) -> None:
    inference = make_inference(delay=0.01)
    await render(avatar, inference, 4.0)
    assert inference.most_running == IN_FLIGHT


async def test_answers_out_of_order_do_not_mix_frames(avatar: Any, make_inference: Any) -> None:
    class Uneven(type(make_inference())):  # type: ignore[misc]
        async def lipsync(self, latents: Any, audio: Any, *, timeout: Any = None) -> U8:
            await asyncio.sleep(0.03 if len(self.batches) % 2 == 0 else 0)
            return await super().lipsync(latents, audio, timeout=timeout)

    frames, _ = await render(avatar, Uneven(), 2.0, batch=4)
    assert [int(frame[CENTRE][2]) for frame in frames] == [2 * i + 1 for i in range(50)]


async def test_less_than_a_frame_of_speech_is_refused(avatar: Any, inference: Any) -> None:
    with pytest.raises(MediaError, match="shorter than one frame"):
        await render(avatar, inference, 0.03)


@pytest.mark.usefixtures("fast_retries")
async def test_a_server_that_comes_back_costs_no_frame(avatar: Any, make_inference: Any) -> None:
    def die_once(call: int) -> None:
        if call == 2:
            inference.is_ready = False
            asyncio.get_running_loop().call_later(
                0.05, lambda: setattr(inference, "is_ready", True)
            )
            raise UnavailableError("gone")

    inference = make_inference(before_lipsync=die_once)
    frames, times = await render(avatar, inference, 2.0)
    assert [int(frame[CENTRE][2]) for frame in frames] == [2 * i + 1 for i in range(50)]
    assert times.retries == 1


@pytest.mark.usefixtures("fast_retries")
async def test_a_server_that_stays_away_is_an_error_soon(avatar: Any, make_inference: Any) -> None:
    def die(call: int) -> None:
        inference.is_ready = False
        raise UnavailableError("gone")

    inference = make_inference(before_lipsync=die)
    with pytest.raises(UnavailableError, match="gone"):
        await asyncio.wait_for(render(avatar, inference, 2.0), 5)
    assert inference.running == 0


@pytest.mark.usefixtures("fast_retries")
@pytest.mark.parametrize("error", [BadInputError("shape"), ServerDiedError("given up")])
async def test_what_trying_again_cannot_help_fails_at_once(
    avatar: Any, make_inference: Any, error: Exception
) -> None:
    def fail(call: int) -> None:
        raise error

    inference = make_inference(before_lipsync=fail)
    with pytest.raises(type(error)):
        await render(avatar, inference, 2.0)
    assert len(inference.batches) <= IN_FLIGHT


@pytest.mark.usefixtures("fast_retries")
async def test_trying_again_ends(avatar: Any, make_inference: Any) -> None:
    def fail(call: int) -> None:
        raise UnavailableError("again and again")

    inference = make_inference(before_lipsync=fail)
    with pytest.raises(UnavailableError):
        await asyncio.wait_for(render(avatar, inference, 0.2), 10)
    assert len(inference.batches) == 3


async def test_cancelling_cancels_the_batches_on_their_way(
    avatar: Any, make_inference: Any
) -> None:
    inference = make_inference(delay=60)
    task = asyncio.create_task(render(avatar, inference, 2.0))
    while inference.running < IN_FLIGHT:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 2)
    assert inference.running == 0


async def test_idle_frames_fade_the_last_mouth_out(avatar: Any) -> None:
    face = np.full((256, 256, 3), 200, np.uint8)
    frames: list[U8] = []
    times = StageTimes()
    async for part in idle_frames(
        avatar, 6, options=RenderOptions(batch=2), times=times, first_frame=0, last_face=face
    ):
        frames += part
    levels = [int(frame[CENTRE][2]) for frame in frames]
    assert levels[:FADE_FRAMES] == sorted(levels[:FADE_FRAMES], reverse=True)
    assert levels[0] < 200 and levels[FADE_FRAMES - 1] > 0
    assert levels[FADE_FRAMES:] == [0] * (6 - FADE_FRAMES)
    assert times.idle == 6


class Source:
    """An endless async generator that knows how far it went and whether it was closed."""

    def __init__(self, end: int | Exception) -> None:
        self.end, self.made, self.closed = end, 0, False

    async def items(self) -> AsyncGenerator[int, None]:
        try:
            while not (isinstance(self.end, int) and self.made >= self.end):
                if isinstance(self.end, Exception) and self.made == 3:
                    raise self.end
                self.made += 1
                yield self.made
                await asyncio.sleep(0)
        finally:
            self.closed = True


async def test_prefetch_is_bounded_and_complete() -> None:
    source = Source(50)
    seen = []
    async for item in prefetch(source.items(), 2):
        seen.append(item)
        await asyncio.sleep(0.001)
        assert source.made <= item + 4
    assert seen == list(range(1, 51))


async def test_prefetch_hands_errors_on_after_the_items() -> None:
    seen = []
    with pytest.raises(ZeroDivisionError):
        async for item in prefetch(Source(ZeroDivisionError()).items(), 2):
            seen.append(item)
    assert seen == [1, 2, 3]


async def test_prefetch_closes_its_source() -> None:
    source = Source(10**9)
    async with aclosing(prefetch(source.items(), 2)) as items:
        async for _ in items:
            break
    assert source.closed

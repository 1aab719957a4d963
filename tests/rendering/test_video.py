from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import psutil
import pytest

from orchestrator.errors import BadInputError, SpeechError
from orchestrator.rendering.encode import AUDIO_RATE
from orchestrator.rendering.provenance import Provenance
from orchestrator.rendering.render import RenderOptions
from orchestrator.rendering.script import Utterance
from orchestrator.rendering.timings import StageTimes
from orchestrator.rendering.video import speak_to_file

U8 = npt.NDArray[np.uint8]
PROVENANCE = Provenance("MuseTalk v1.5", "w", "Ada")


def utterance(seconds: float, pause: float | None, share: float = 1.0) -> Utterance:
    pcm = np.full(round(seconds * 16000), 1000, np.int16)
    t = np.arange(round(seconds * AUDIO_RATE)) / AUDIO_RATE
    return Utterance(pcm, (9000 * np.sin(2000 * t)).astype(np.int16), pause, share)


async def stream(*utterances: Utterance) -> AsyncGenerator[Utterance, None]:
    for item in utterances:
        yield item


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def read(path: Path) -> tuple[list[U8], npt.NDArray[np.float32], float, float]:
    with av.open(str(path)) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        lengths = [float(s.duration * s.time_base) for s in (video, audio)]
        frames = [frame.to_ndarray(format="bgr24") for frame in container.decode(video)]
        container.seek(0)
        sound = np.concatenate([block.to_ndarray()[0] for block in container.decode(audio)])
    return frames, sound, lengths[0], lengths[1]


async def speak(avatar: Any, inference: Any, path: Path, *said: Utterance, **more: Any) -> Any:
    times = more.pop("times", StageTimes())
    progress = more.pop("progress", None)
    return await speak_to_file(
        avatar,
        stream(*said),
        path,
        inference=inference,
        options=RenderOptions(**more),
        provenance=PROVENANCE,
        times=times,
        progress=progress,
    )


@pytest.mark.parametrize("fps", [8, 15, 25, 30, 49])
async def test_a_recording_has_floor_frames(
    tmp_path: Path, avatar: Any, inference: Any, fps: int
) -> None:
    path = tmp_path / "out.mp4"
    info = await speak(avatar, inference, path, utterance(1.937, None), fps=fps)
    frames, _, video, audio = read(path)
    assert info.frames == len(frames) == int(1.937 * fps)
    assert abs(video - audio) < 1 / fps
    assert abs(video - len(frames) / fps) < 0.001


async def test_sentences_start_on_frames_and_pauses_are_silent_and_idle(
    tmp_path: Path, avatar: Any, inference: Any
) -> None:
    path = tmp_path / "out.mp4"
    times = StageTimes()
    said = [utterance(0.99, 0.25, 0.5), utterance(0.5, 0.0, 0.5)]
    info = await speak(avatar, inference, path, *said, times=times)
    frames, sound, video, audio = read(path)
    # ceil(1.24*25) = 31 frames, of which floor(0.99*25) = 24 speak; then 13 of which 12 speak.
    assert info.frames == len(frames) == 31 + 13
    assert (times.generated, times.idle) == (24 + 12, 7 + 1)
    assert abs(video - audio) < 1 / 25
    loud = np.abs(sound) > 0.05
    starts = np.flatnonzero(loud) / AUDIO_RATE
    assert abs(starts[starts > 1.1][0] - 31 / 25) < 0.01
    assert not loud[int(1.02 * AUDIO_RATE) : int(1.22 * AUDIO_RATE)].any()
    mouth = [int(frame[32, 48][2]) for frame in frames]
    assert max(mouth[28:31]) < 12
    # The second sentence reads its own first step again: nothing of the first is left in it.
    assert abs(mouth[31] - 1) <= 4 and mouth[42] > 15


async def test_progress_grows_to_the_end(tmp_path: Path, avatar: Any, inference: Any) -> None:
    seen: list[tuple[float, int]] = []
    await speak(
        avatar,
        inference,
        tmp_path / "out.mp4",
        utterance(1, 0.2, 0.4),
        utterance(2, 0.0, 0.6),
        progress=lambda part, frames: seen.append((part, frames)),
    )
    parts = [part for part, _ in seen]
    assert parts == sorted(parts) and parts[-1] == pytest.approx(1.0)
    assert seen[-1][1] == 30 + 50


async def test_times_of_all_stages(tmp_path: Path, avatar: Any, inference: Any) -> None:
    times = StageTimes()
    await speak(avatar, inference, tmp_path / "out.mp4", utterance(1, None), times=times)
    assert all(
        times.seconds[s] > 0 for s in ("features", "lipsync", "composite", "encode", "finish")
    )
    assert times.media == 1.0
    assert times.real_time_factor == times.wall
    assert times.frames == 25


async def test_a_failing_server_leaves_nothing(
    tmp_path: Path, avatar: Any, make_inference: Any
) -> None:
    def fail(call: int) -> None:
        if call == 2:
            raise BadInputError("wrong shape")

    with pytest.raises(BadInputError):
        await speak(
            avatar, make_inference(before_lipsync=fail), tmp_path / "o.mp4", utterance(3, None)
        )
    assert names(tmp_path) == []


async def test_a_failing_voice_leaves_nothing(tmp_path: Path, avatar: Any, inference: Any) -> None:
    async def breaks() -> AsyncGenerator[Utterance, None]:
        yield utterance(1, 0.2, 0.5)
        raise SpeechError("no voice")

    with pytest.raises(SpeechError):
        await speak_to_file(
            avatar,
            breaks(),
            tmp_path / "out.mp4",
            inference=inference,
            options=RenderOptions(),
            provenance=PROVENANCE,
            times=StageTimes(),
        )
    assert names(tmp_path) == []


async def test_cancelling_stops_everything(
    tmp_path: Path, avatar: Any, make_inference: Any
) -> None:
    inference = make_inference(delay=0.05)
    closed = asyncio.Event()

    async def endless() -> AsyncGenerator[Utterance, None]:
        try:
            while True:
                yield utterance(1, 0.1, 0.001)
        finally:
            closed.set()

    task = asyncio.create_task(
        speak_to_file(
            avatar,
            endless(),
            tmp_path / "out.mp4",
            inference=inference,
            options=RenderOptions(),
            provenance=PROVENANCE,
            times=StageTimes(),
        )
    )
    while len(inference.batches) < 6:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 2)
    assert inference.running == 0 and closed.is_set()
    assert names(tmp_path) == []
    children = psutil.Process().children(recursive=True)
    assert not [child for child in children if "ffmpeg" in child.name()]
    assert len(asyncio.all_tasks()) == 1


async def test_a_slow_encoder_holds_the_renderer_back(
    tmp_path: Path, avatar: Any, inference: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Finished batches do not pile up in memory behind an encoder that is slower than Triton."""
    from orchestrator.rendering.encode import Mp4Writer

    ahead: list[int] = []
    original = Mp4Writer.write

    async def slow(self: Mp4Writer, frames: Any) -> None:
        await asyncio.sleep(0.02)
        await original(self, frames)
        ahead.append(sum(inference.batches) - self._frames)

    monkeypatch.setattr(Mp4Writer, "write", slow)
    await speak(avatar, inference, tmp_path / "out.mp4", utterance(8, None), batch=4)
    assert max(ahead) <= 4 * 7

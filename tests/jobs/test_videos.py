"""Jobs in one process: what comes out, idempotency, cache, cancelling, retention."""

from __future__ import annotations

import io
from typing import Any

import av

from orchestrator.jobs.videos import Order


def frames_of(video: bytes) -> list[Any]:
    with av.open(io.BytesIO(video)) as file:
        return [frame.to_ndarray(format="bgr24") for frame in file.decode(video=0)]


async def test_text_becomes_a_video(opened: Any, wait: Any, content: Any, voice: Any) -> None:
    async with opened() as videos:
        job = await videos.create("local", Order(text="Hello there. How are you today?"))
        assert job.status == "queued"
        done = await wait(videos, job)
        assert done.status == "succeeded", done.error
        frames = frames_of(await content(videos, done))
        assert done.result is not None and len(frames) == done.result.frames
        assert voice.texts == ["Hello there.", "How are you today?"]

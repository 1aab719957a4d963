"""All that a viewer got is one valid MP4, whatever happened on the way."""

from __future__ import annotations

import asyncio
import io
import subprocess
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from orchestrator.speech.ffmpeg import ffmpeg_path

PACKET = 1024 / 48_000


def check_mp4(stream: bytes, path: Path, seconds: float) -> None:
    """Decodes without a warning; both tracks are gapless from 0 to about the end."""
    path.write_bytes(stream)
    for track in ("v", "a"):
        decoded = subprocess.run(
            [
                *(ffmpeg_path(), "-v", "warning", "-xerror", "-err_detect", "explode"),
                *("-nostdin", "-i", str(path), "-map", f"0:{track}", "-f", "null", "-"),
            ],
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert (decoded.returncode, decoded.stderr.decode()) == (0, "")
    for kind in ("video", "audio"):
        with av.open(io.BytesIO(stream)) as file:
            packets = [packet for packet in file.demux(**{kind: 0}) if packet.size]
            unit = packets[0].time_base
        assert all(packet.dts == packet.pts for packet in packets)
        starts = np.array([float(packet.dts * unit) for packet in packets])
        ends = starts + [float(packet.duration * unit) for packet in packets]
        assert abs(starts[0]) < PACKET
        assert (np.diff(starts) > 0).all()
        gaps = starts[1:] - ends[:-1]
        assert np.abs(gaps).max() <= PACKET
        assert abs(ends[-1] - seconds) < 0.2
        assert not any(packet.is_corrupt for packet in packets)


async def test_idle_turns_interruption_and_reconnect(stage, tmp_path: Path) -> None:
    stage.llm.tokens_per_second = 40
    stage.llm.reply = lambda _: "This is what I answer, and it goes on for a while. Is it not?"
    viewer = stage.viewer()
    await viewer.connect()
    try:
        await viewer.until(lambda: viewer.position > 1)
        # Three turns: one by text, one answered, one in the viewer's own voice.
        turn = await viewer.begin("say", {"text": "Hello there, I am a picture."})
        await viewer.performance(turn)
        await viewer.idle_again(turn)
        turn = await viewer.begin("ask", {"text": "What is it?"})
        await viewer.until(lambda: viewer.of("transcript", turn)[1:])
        # Away for a moment in the middle of an answer.
        await viewer.disconnect()
        await asyncio.sleep(0.5)
        answer = await viewer.connect(resume=True)
        assert answer["resumed"]
        await viewer.performance(turn)
        await viewer.idle_again(turn)
        speech = (3000 * np.sin(np.arange(32_000) / 10)).astype(np.int16).tobytes()
        turn = await viewer.begin("speech", {"audio": speech, "final": True})
        await viewer.performance(turn)
        # Interrupted by a question, and that by a word.
        turn = await viewer.begin("ask", {"text": "And what is that?"})
        await viewer.until(lambda: viewer.of("transcript", turn)[1:])
        await asyncio.sleep(0.4)
        asked, shown = viewer.position, len(viewer.of("flush"))
        assert (await viewer.call("interrupt"))["ok"]
        (flush,) = viewer.of("flush")[shown:]
        assert flush["from_pts"] - asked < 0.5
        await viewer.until(lambda: viewer.position > flush["from_pts"] + 1.0)
    finally:
        await viewer.disconnect()
    assert not viewer.problems
    # Media is played in the order in which it came, and there is always some.
    spoken = [r for r in viewer.media if r.kind == "speech"]
    assert all(b.start >= a.start - 2 for a, b in pairwise(spoken))
    check_mp4(viewer.stream(), tmp_path / "received.mp4", viewer.end)


async def test_half_rate_is_the_same_grid(stage, tmp_path: Path) -> None:
    async with stage.viewer(profile="economy") as viewer:
        assert viewer.joined["fps"] == 12.5
        turn = await viewer.begin("say", {"text": "Hello there, I am a picture of two."})
        await viewer.performance(turn)
        await viewer.idle_again(turn)
        stream, end = viewer.stream(), viewer.end
    check_mp4(stream, tmp_path / "received.mp4", end)
    with av.open(io.BytesIO(stream)) as file:
        durations = {
            round(packet.duration * packet.time_base * 25)
            for packet in file.demux(video=0)
            if packet.size
        }
    assert 2 in durations and all(length % 2 == 0 for length in durations - {1})


@pytest.mark.parametrize("profile", ["classic"])
async def test_other_frame_rates(stage, tmp_path: Path, profile: str) -> None:
    async with stage.viewer(profile=profile) as viewer:
        turn = await viewer.begin("say", {"text": "Hello there."})
        await viewer.performance(turn)
        await viewer.idle_again(turn)
        stream, end = viewer.stream(), viewer.end
    check_mp4(stream, tmp_path / "received.mp4", end)

"""Jobs in one process: what comes out, cache, failures, what the database holds."""

from __future__ import annotations

import asyncio
import io
import json
import sqlite3
import time
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from orchestrator.errors import (
    ConflictError,
    NotFoundError,
    SetupError,
    SpeechError,
)
from orchestrator.jobs.order import Order
from orchestrator.jobs.store import open_store
from orchestrator.rendering.script import read_recording, read_text
from orchestrator.rendering.timings import StageTimes
from orchestrator.settings import Settings

TEXT = " ".join(f"This is the sentence with the number {n} of a text." for n in range(10))


def decoded(video: bytes | Path) -> tuple[Any, Any]:
    """Frames U8[N,H,W] grey and sound F32[S]."""
    source = io.BytesIO(video) if isinstance(video, bytes) else str(video)
    with av.open(source) as file:
        frames = [frame.to_ndarray(format="gray") for frame in file.decode(video=0)]
        file.seek(0)
        sound = [frame.to_ndarray()[0] for frame in file.decode(audio=0)]
        assert [packet.dts for packet in file.demux(video=0)]
    return np.stack(frames).astype(np.int16), np.concatenate(sound)


def wav(seconds: float) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        t = np.arange(round(seconds * 16000)) / 16000
        tone = np.sin(2 * np.pi * (300 + 20 * t) * t)
        file.writeframes((9000 * tone).astype("<i2").tobytes())
    return buffer.getvalue()


def files_in(folder: str | Path) -> list[str]:
    return sorted(path.name for path in Path(folder).rglob("*") if path.is_file())


async def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s"
        await asyncio.sleep(0.02)


async def test_pieces_make_the_same_video_as_the_whole(
    opened: Any, wait: Any, content: Any, fakes: Any, tmp_path: Path, address: str
) -> None:
    settings = Settings(cache_dir=tmp_path)
    renderer = fakes.fake_renderer(settings)
    whole = tmp_path / "whole.mp4"
    info = await renderer.speak(
        read_text(TEXT, settings), await renderer.avatar(None), whole, fps=12, times=StageTimes()
    )
    async with opened(video_store=address) as videos:
        done = await wait(videos, await videos.create("me", Order(text=TEXT, fps=12)))
        assert done.status == "succeeded", done.error
        video = await content(videos, done)
        captions = (await videos.captions("me", done.id)).decode()
    assert done.result.frames == info.frames and len(video) == done.result.size
    assert info.frames > 2 * 12 * 10  # several pieces
    frames, sound = decoded(video)
    expected, expected_sound = decoded(whole)
    assert frames.shape == expected.shape
    assert np.abs(frames - expected).max() < 12  # other key frames, otherwise the same
    assert np.abs(frames - expected).mean() < 0.5
    assert len(sound) == len(expected_sound)
    assert np.abs(sound - expected_sound).max() < 1e-3
    assert captions.count("-->") == 10 and "number 9 of" in captions


async def test_long_recording_in_pieces(
    opened: Any, wait: Any, content: Any, fakes: Any, tmp_path: Path
) -> None:
    settings = Settings(cache_dir=tmp_path)
    renderer = fakes.fake_renderer(settings)
    audio, whole = wav(38.7), tmp_path / "whole.mp4"
    recording = await read_recording(audio, settings)
    await renderer.speak(recording, await renderer.avatar(None), whole, fps=8, times=StageTimes())
    async with opened() as videos:
        done = await wait(videos, await videos.create("me", Order(audio=audio, fps=8)))
        assert done.status == "succeeded", done.error
        frames, sound = decoded(await content(videos, done))
        with pytest.raises(NotFoundError, match="no captions"):
            await videos.captions("me", done.id)
    expected, expected_sound = decoded(whole)
    assert frames.shape == expected.shape and len(frames) == 309
    assert np.abs(frames - expected).mean() < 0.5
    assert len(sound) == len(expected_sound)
    assert np.abs(sound - expected_sound).max() < 1e-3


async def test_message_is_answered_once_and_spoken(
    opened: Any, wait: Any, voice: Any, responder: Any, results: list[str]
) -> None:
    async with opened() as videos:
        done = await wait(videos, await videos.create("me", Order(message="Hello world.")))
    assert done.status == "succeeded" and results == ["ok"]
    assert responder.messages == ["Hello world."]
    assert voice.texts == ["You said Hello world.", "Is that so?"]
    assert voice.languages == {None}  # a voice of any language takes what asks for none


async def test_a_message_is_answered_cut_and_spoken_in_its_language(
    opened: Any, wait: Any, voice: Any, responder: Any
) -> None:
    async with opened() as videos:
        order = Order(message="Pr. Martin est là ?", language="fr")
        await wait(videos, await videos.create("me", order))
        await wait(
            videos,
            await videos.create("me", Order(text="À 10 h. 15, le 3 janv. 2027.", language="fr")),
        )
    assert responder.options[0]["language"] == "fr"
    assert responder.options[0]["system"].endswith("Answer in French.")
    assert voice.texts[0] == "You said Pr. Martin est là ?"
    assert voice.texts[-1] == "À 10 h. 15, le 3 janv. 2027."
    assert voice.languages == {"fr"}


async def test_repeated_request_comes_from_the_cache(
    opened: Any, wait: Any, content: Any, voice: Any, inference: Any, address: str
) -> None:
    async with opened(video_store=address) as videos:
        first = await wait(videos, await videos.create("me", Order(text="Hello there.")))
        spoken, calls = len(voice.texts), inference.calls
        again = await wait(videos, await videos.create("me", Order(text="Hello there.")))
        assert again.id != first.id and again.result.cached
        assert (len(voice.texts), inference.calls) == (spoken, calls)
        assert again.result.video == first.result.video
        assert again.expires > first.expires
        for order in (Order(text="Hello here."), Order(text="Hello there.", fps=12)):
            other = await wait(videos, await videos.create("me", order))
            assert not other.result.cached
        stranger = await wait(videos, await videos.create("you", Order(text="Hello there.")))
        assert not stranger.result.cached
        # The first job goes; its file stays as long as the second one needs it.
        expected = await content(videos, first)
        await videos.delete("me", first.id)
        assert await content(videos, again) == expected
        await videos.delete("me", again.id)
        with pytest.raises(NotFoundError):
            await open_store(address).read(first.result.video)


async def test_only_the_result_stays(opened: Any, wait: Any, tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    async with opened(video_store=str(folder)) as videos:
        done = await wait(videos, await videos.create("me", Order(text=TEXT)))
        await until(lambda: len(files_in(folder)) == 2)
        assert files_in(folder) == ["captions.vtt", "video.mp4"]
        await videos.delete("me", done.id)
        assert files_in(folder) == []


async def test_a_failure_says_why_and_leaves_nothing(
    opened: Any, wait: Any, voice: Any, results: list[str], tmp_path: Path
) -> None:
    voice.error = SetupError("the key is refused", remedy="check it")
    async with opened() as videos:
        job = await videos.create("me", Order(text="Hello."))
        failed = await wait(videos, job)
        assert failed.status == "failed" and failed.expires > time.time()
        assert (failed.error.code, failed.error.message) == ("setup", "the key is refused")
        assert failed.error.remedy == "check it"
        with pytest.raises(ConflictError, match="failed"):
            await videos.result("me", job.id)
        assert len(voice.texts) == 1 and results == ["setup"]
        voice.error = RuntimeError("a secret detail")
        failed = await wait(videos, await videos.create("me", Order(text="Hello.")))
        assert failed.error.code == "internal" and "secret" not in failed.error.message


async def test_what_may_pass_is_tried_again(
    opened: Any, wait: Any, voice: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.jobs.engine._RETRY_SECONDS", 0.05)
    voice.error = SpeechError("no answer")
    async with opened() as videos:
        failed = await wait(videos, await videos.create("me", Order(text="Hello.")))
        assert failed.error.code == "speech" and len(voice.texts) == 3


async def test_database_holds_references_in_json(opened: Any, wait: Any, tmp_path: Path) -> None:
    async with opened() as videos:
        job = await wait(videos, await videos.create("me", Order(text=TEXT)))
        with sqlite3.connect(tmp_path / "videos" / "jobs.sqlite") as database:
            rows = database.execute(
                "SELECT function_name, output, serialization FROM operation_outputs"
            ).fetchall()
        names = [name for name, _, _ in rows]
        assert {"llm", "tts 9", "render 1", "publish"} <= set(names)
        for _, output, serialization in rows:
            assert serialization == "musetalk_json"
            json.loads(output)
        assert max(len(output) for _, output, _ in rows) < 4000
        await videos.delete("me", job.id)
        with sqlite3.connect(tmp_path / "videos" / "jobs.sqlite") as database:
            for table in ("operation_outputs", "workflow_status", "musetalk_videos"):
                assert database.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)


async def test_a_store_or_database_that_is_not_there(opened: Any, s3: str) -> None:
    for change in (
        {"video_store": "s3://no-such-bucket"},
        {"video_store": "/proc/no/such/folder"},
        {"database_url": "mysql://somewhere/else"},
        {"database_url": "nonsense"},
        {"database_url": "postgresql://user:secret@127.0.0.1:1/none"},
    ):
        with pytest.raises(SetupError) as caught:
            async with opened(**change):
                pass
        assert "secret" not in str(caught.value) and caught.value.remedy

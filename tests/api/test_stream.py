"""``/v1/speak`` as a stream: playable while it is made, bounded, ended with its client."""

from __future__ import annotations

import asyncio
import io
import json
import re
import socket
import time
from typing import Any

import av
import httpx
import pytest

from orchestrator.api.keys import KeyFile, Limits
from orchestrator.api.usage import today
from orchestrator.errors import InferenceError
from orchestrator.speech.ffmpeg import ffmpeg_path

TEXT = "This is a sentence that is said. And here is another one, which comes after it."


def boxes(data: bytes) -> list[bytes]:
    kinds, place = [], 0
    while place < len(data):
        kinds.append(data[place + 4 : place + 8])
        place += int.from_bytes(data[place : place + 4], "big")
    return kinds


async def until(condition: Any, seconds: float) -> float:
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < seconds, "it did not happen in time"
        await asyncio.sleep(0.02)
    return time.monotonic() - start


async def test_a_stream_is_one_playable_file_that_comes_while_it_is_made(
    start_service: Any,
) -> None:
    async with start_service(delay=0.1) as running, httpx.AsyncClient(timeout=60) as client:
        body = {"text": TEXT, "stream": True}
        data, first = b"", None
        async with client.stream("POST", f"{running.url}/v1/speak", json=body) as answer:
            assert answer.status_code == 200
            assert answer.headers["content-type"] == "video/mp4"
            assert "content-length" not in answer.headers
            async for piece in answer.aiter_bytes():
                first = first or running.inference.calls
                data += piece
        assert first is not None and first < running.inference.calls / 2
    kinds = boxes(data)
    assert kinds[:2] == [b"ftyp", b"moov"] and kinds[2:4] == [b"moof", b"mdat"]
    with av.open(io.BytesIO(data)) as file:
        video, audio = file.streams.video[0], file.streams.audio[0]
        assert (video.codec_context.name, audio.codec_context.name) == ("h264", "aac")
        times = [float(frame.time) for frame in file.decode(video)]
        assert times == pytest.approx([number / 25 for number in range(len(times))], abs=1e-3)
    with av.open(io.BytesIO(data)) as file:
        samples = sum(frame.samples for frame in file.decode(audio=0))
    spoken = len(TEXT) / 25
    assert spoken <= len(times) / 25 <= spoken + 2
    assert abs(samples / 48_000 - len(times) / 25) < 0.12


async def test_ffmpeg_plays_the_address_itself(start_service: Any) -> None:
    async with start_service() as running:
        url = str(httpx.URL(f"{running.url}/v1/speak", params={"text": TEXT}))
        process = await asyncio.create_subprocess_exec(
            *(ffmpeg_path(), "-v", "verbose", "-i", url, "-f", "null", "-"),
            stderr=asyncio.subprocess.PIPE,
        )
        _, words = await asyncio.wait_for(process.communicate(), 60)
    frames = re.findall(r"(\d+) frames decoded; 0 decode errors", words.decode())
    assert process.returncode == 0 and len(frames) == 2, words.decode()
    assert int(frames[0]) >= len(TEXT)


async def test_a_recording_as_a_stream(start_service: Any, tmp_path: Any) -> None:
    import wave

    import numpy as np

    path = tmp_path / "a.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        t = np.arange(16000 * 25) / 16000
        file.writeframes((9000 * np.sin(2000 * t)).astype("<i2").tobytes())
    async with start_service() as running, httpx.AsyncClient(timeout=60) as client:
        answer = await client.post(
            f"{running.url}/v1/speak",
            files={"audio": ("a.wav", path.read_bytes())},
            data={"stream": "true", "fps": "12"},
        )
    assert answer.status_code == 200
    with av.open(io.BytesIO(answer.content)) as media:
        frames = sum(1 for _ in media.decode(video=0))
    assert 25 * 12 <= frames <= 25 * 12 + 8


async def test_a_slow_reader_holds_up_the_work_and_a_vanished_one_ends_it(
    start_service: Any,
) -> None:
    async with start_service(max_text_chars=50_000) as running:
        port = int(running.url.rsplit(":", 1)[1])
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", port))
        reader, writer = await asyncio.open_connection(sock=client, limit=4096)
        sentences = 300
        text = " ".join(f"Sentence {number} of a very long text." for number in range(sentences))
        body = json.dumps({"text": text, "stream": True}).encode()
        writer.write(
            b"POST /v1/speak HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            + f"Content-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"200 OK" in head
        calls = -1
        while calls != running.inference.calls:
            calls = running.inference.calls
            await asyncio.sleep(1.5)
        assert calls < sentences, "all was rendered although nobody read it"
        writer.transport.abort()
        await until(lambda: running.service.admission._taken == 0, 2.0)
        assert running.inference.running == 0


async def test_a_client_that_leaves_ends_the_work(start_service: Any) -> None:
    async with start_service(delay=0.2) as running, httpx.AsyncClient(timeout=60) as client:
        body = {"text": TEXT * 3, "stream": True}
        async with client.stream("POST", f"{running.url}/v1/speak", json=body) as answer:
            async for _ in answer.aiter_bytes():
                break
        await until(lambda: running.service.admission._taken == 0, 2.0)
        calls = running.inference.calls
        await asyncio.sleep(0.5)
        assert running.inference.calls == calls and running.inference.running == 0
        assert b'musetalk_renders_total{result="cancelled"} 1.0' in (
            running.service.telemetry.render()
        )


async def test_an_error_in_the_middle_breaks_the_connection(start_service: Any) -> None:
    async with start_service(delay=0.1) as running, httpx.AsyncClient(timeout=60) as client:
        body = {"text": f"{TEXT} " * 9, "stream": True}
        with pytest.raises(httpx.RemoteProtocolError):
            async with client.stream("POST", f"{running.url}/v1/speak", json=body) as answer:
                assert answer.status_code == 200
                running.voice.error = InferenceError("broken")
                async for _ in answer.aiter_bytes():
                    pass
        await until(lambda: running.service.admission._taken == 0, 2.0)


async def test_orders_that_cannot_be_streamed(start_service: Any) -> None:
    async with (
        start_service() as running,
        httpx.AsyncClient(base_url=running.url, timeout=60) as client,
    ):
        refused = await client.post("/v1/speak", json={"text": "Hi.", "stream": True, "fps": 9})
        assert refused.status_code == 400 and "frames a second" in refused.json()["detail"]
        missing = {"text": "Hi.", "stream": True, "avatar": "../x"}
        assert (await client.post("/v1/speak", json=missing)).status_code == 404
        assert (await client.get("/v1/speak", params={"text": "..."})).status_code == 400
        embedded = {"sec-fetch-site": "cross-site"}
        answer = await client.get("/v1/speak", params={"text": "Hi."}, headers=embedded)
        assert answer.status_code == 403
        assert (await client.get("/", headers=embedded)).status_code == 200
        assert running.service.admission._taken == 0


async def test_what_a_key_makes_is_counted_and_limited(start_service: Any, tmp_path: Any) -> None:
    file = KeyFile(tmp_path / "keys.json")
    key, secret = file.add("ana", Limits(video_seconds=3))
    async with (
        start_service(api_keys_file=file.path) as running,
        httpx.AsyncClient(base_url=running.url, timeout=60) as client,
    ):
        assert (await client.get("/v1/avatars")).status_code == 401
        client.headers["authorization"] = f"Bearer {secret}"
        for stream in (True, False):
            answer = await client.post("/v1/speak", json={"text": TEXT[:40], "stream": stream})
            assert answer.status_code == 200
        used = await asyncio.to_thread(running.service.access.usage.seconds, key.id, today())
        assert 3 < used < 6
        refused = await client.post("/v1/speak", json={"text": "Hi."})
        assert refused.status_code == 429 and refused.json()["code"] == "quota"
        assert (await client.post("/v1/videos", json={"text": "Hi."})).status_code == 429

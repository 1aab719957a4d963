"""``musetalk serve`` with a real Triton and the embedded voice, seen by a viewer."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import cv2
import httpx
import numpy as np
import pytest

from loadtests.loopback_llm import LoopbackLlm, loopback_llm
from loadtests.ports import free_port
from loadtests.viewer import Viewer
from orchestrator.avatars.avatar import Avatar
from orchestrator.avatars.masks import BlendMask
from orchestrator.avatars.store import AvatarStore
from orchestrator.rendering.gallery import portraits

ROOT = Path(__file__).parent.parent.parent
REPLY_SECONDS = float(os.environ.get("MUSETALK_TEST_REPLY_SECONDS", "12"))
SECRETS = {
    "MUSETALK_LLM_API_KEY": "sk-llm-4711",
    "MUSETALK_TTS_API_KEY": "sk-tts-4712",
    "MUSETALK_STT_API_KEY": "sk-stt-4713",
}
ASKED = "Zanzibar and its marzipan"
ANSWERED = "The quicksilver walrus juggles lavender umbrellas, and nobody minds at all."


def store_avatar(cache: Path) -> None:
    """An avatar in the place of the default portrait, which takes long to prepare."""
    jpeg = cv2.imencode(".jpg", np.full((240, 320, 3), 60, np.uint8))[1].tobytes()
    AvatarStore(cache / "avatars").add(
        Avatar(
            id="ada",
            name=next(iter(portraits())),
            width=320,
            height=240,
            jpegs=(jpeg,) * 5,
            latents=np.zeros((5, 8, 32, 32), np.float16),
            boxes=np.tile(np.array([100, 60, 220, 180], np.int32), (5, 1)),
            squares=np.tile(np.array([60, 20, 260, 220], np.int32), (5, 1)),
            masks=(BlendMask(110, 110, np.full((60, 100), 255, np.uint8)),) * 5,
            metadata={"consent": "a grey square"},
        )
    )


@asynccontextmanager
async def serving(cache: Path, log: Path, **environment: str) -> AsyncIterator[tuple[str, int]]:
    store_avatar(cache)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with log.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "orchestrator.cli", "serve", "--port", str(port)),
            env={
                **os.environ,
                "MUSETALK_CACHE_DIR": str(cache),
                "MUSETALK_MAX_TALKERS": "2",
                **SECRETS,
                **environment,
            },
            cwd=ROOT,
            stderr=file,
        )
    try:
        async with httpx.AsyncClient() as client:
            end = time.monotonic() + 120
            while True:
                assert process.returncode is None and time.monotonic() < end, log
                try:
                    if (await client.get(f"{url}/readyz")).status_code == 200:
                        break
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.2)
        yield url, process.pid
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 40) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.triton
@pytest.mark.slow
async def test_a_turn_ends_before_the_service_does(tmp_path: Path) -> None:
    """SIGTERM: no new sessions, the turn is spoken to its end, then the process goes."""
    log = tmp_path / "log"
    async with (
        serving(tmp_path, log, MUSETALK_DRAIN_SECONDS="60") as (url, pid),
        httpx.AsyncClient() as client,
        Viewer(url) as viewer,
    ):
        turn = await viewer.begin("say", {"text": long_reply(8)})
        await viewer.until(lambda: viewer.of("transcript", turn))
        os.kill(pid, signal.SIGTERM)
        await asyncio.sleep(0.3)
        assert (await client.get(f"{url}/readyz")).status_code == 503
        with pytest.raises(ConnectionError, match="stopping"):
            await Viewer(url).connect()
        performance = await viewer.performance(turn)
        assert performance["frames"] > 100
        assert not viewer.of("error")
        await viewer.disconnect()


def long_reply(seconds: float) -> str:
    sentence = "This is sentence number {} of an answer that goes on for a while. "
    return "".join(sentence.format(number) for number in range(round(seconds / 3.6)))


@pytest.mark.triton
@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_a_conversation(tmp_path: Path) -> None:
    async with loopback_llm() as llm:
        environment = {
            "MUSETALK_LLM_BASE_URL": llm.url,
            "MUSETALK_LLM_MAX_TOKENS": "2000",
            "MUSETALK_LLM_TOTAL_TIMEOUT": "300",
            "MUSETALK_LOG_FORMAT": "json",
            "MUSETALK_DEBUG_TIMING": "1",
        }
        log = tmp_path / "log"
        async with serving(tmp_path, log, **environment) as (url, _), Viewer(url) as viewer:
            assert viewer.joined["live_responder"]
            turn = await never_behind(viewer, llm)
            await nothing_private(viewer, llm, url)
        check_log(log.read_text(), turn)


async def never_behind(viewer: Viewer, llm: LoopbackLlm) -> str:
    """A long reply at 20 tokens a second; figures are printed, limits are wide."""
    llm.reply = lambda _: long_reply(REPLY_SECONDS)
    stalls = viewer.stalls
    turn = await viewer.begin("ask", {"text": "Tell me more."})
    performance = await viewer.performance(turn, timeout=REPLY_SECONDS * 2 + 60)
    await viewer.idle_again(turn)
    assert not viewer.of("error"), viewer.of("error")
    spoken = viewer.of("transcript", turn)[-1]["end"] - viewer.of("transcript", turn)[1]["start"]
    print(f"reply of {spoken:.1f} s, stalls {viewer.stalls - stalls:.2f} s:", performance)  # noqa: T201
    assert spoken > REPLY_SECONDS / 2
    assert not viewer.problems
    assert viewer.stalls - stalls < spoken / 3
    assert performance["frames_late"] < performance["frames"] / 2
    assert performance["first_frame"] < 10
    return turn


async def nothing_private(viewer: Viewer, llm: LoopbackLlm, url: str) -> None:
    """Turns that succeed and fail with words that must not be logged."""
    llm.reply = lambda _: ANSWERED
    turn = await viewer.begin("ask", {"text": ASKED})
    await viewer.performance(turn)
    words = " ".join(payload["text"] for payload in viewer.of("transcript", turn))
    assert "marzipan" in words and "walrus" in words
    llm.answer = lambda exchange: exchange.status(
        500, {"error": {"message": f"{ASKED} {SECRETS['MUSETALK_LLM_API_KEY']} {ANSWERED}"}}
    )
    turn = await viewer.begin("ask", {"text": ASKED})
    (error,) = await viewer.until(lambda: viewer.of("error", turn))
    assert error["code"] == "llm" and "sk-llm" not in error["message"]
    llm.answer = None
    async with httpx.AsyncClient() as client:
        metrics = (await client.get(f"{url}/metrics")).text
    for series in (
        'musetalk_turns_total{result="ok"} 2.0',
        'musetalk_errors_total{code="llm"} 1.0',
        'musetalk_sessions{state="idle"} 1.0',
    ):
        assert series in metrics
    assert not any(secret in metrics for secret in (*SECRETS.values(), "marzipan", "walrus"))


def check_log(text: str, turn: str) -> None:
    for word in (*SECRETS.values(), *re.findall(r"\w{7,}", f"{ASKED} {ANSWERED}"), "sentence"):
        assert word.lower() not in text.lower(), word
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    stages = {line["message"] for line in lines if line.get("turn") == turn}
    assert {"llm", "tts", "features", "inference", "compositing", "encoding"} <= stages
    assert any(line["message"].endswith("llm") and line["level"] == "warning" for line in lines)

"""What is behind the sessions fails; each turn ends with a clear word, and the session lives."""

from __future__ import annotations

import asyncio
from typing import Any

from loadtests.loopback_llm import Exchange
from loadtests.viewer import Viewer


async def turn_of(viewer: Viewer, event: str, text: str) -> tuple[str, list[dict[str, Any]]]:
    """A whole turn: what the avatar said, and the errors."""
    turn = await viewer.begin(event, {"text": text})
    await viewer.idle_again(turn)
    said = [p["text"] for p in viewer.of("transcript", turn) if p["role"] == "avatar"]
    return " ".join(said), viewer.of("error", turn)


async def test_the_second_voice_speaks_and_the_viewer_is_told(stage) -> None:
    stage.voice.broken = True
    async with stage.viewer() as viewer:
        said, (notice,) = await turn_of(viewer, "say", "Hello there.")
        assert said == "Hello there." and notice["code"] == "voice_switched"
        assert stage.metric("musetalk_voice_switches_total") == 1
        stage.second_voice.broken = True
        said, (error,) = await turn_of(viewer, "say", "Hello again.")
        assert said == "" and (error["code"], error["retryable"]) == ("speech", True)
        stage.second_voice.broken = False
        said, _ = await turn_of(viewer, "say", "And again.")
        assert said == "And again."
    assert not viewer.problems


async def test_a_language_model_that_breaks_off(stage) -> None:
    async def break_off(exchange: Exchange) -> None:
        await exchange.start()
        for word in ("I", "can", "say", "this", "much.", "But", "not"):
            await exchange.token(f" {word}")
        await asyncio.sleep(0.2)
        exchange.writer.transport.abort()

    async with stage.viewer() as viewer:
        stage.llm.answer = break_off
        said, (error,) = await turn_of(viewer, "ask", "What?")
        assert error["code"] == "llm" and error["message"]
        assert said == "I can say this much."
        stage.llm.answer, stage.llm.reply = None, lambda _: "All is well."
        said, errors = await turn_of(viewer, "ask", "What?")
        assert (said, errors) == ("All is well.", [])
    assert not viewer.problems
    assert stage.llm.active == 0 and len(stage.llm.exchanges) == 2  # nothing was asked twice


async def test_a_model_that_comes_back(stage) -> None:
    async with stage.viewer() as viewer:
        stage.model.dead = True
        turn = await viewer.begin("say", {"text": "Hello there."})
        await asyncio.sleep(1)
        stage.model.dead = False
        performance = await viewer.performance(turn)
        await viewer.idle_again(turn)
        assert not viewer.of("error", turn)
        assert performance["first_frame"] > 1 and performance["frames_late"] == 0
    assert not viewer.problems

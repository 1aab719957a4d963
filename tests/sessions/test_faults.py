"""Parts that fail and viewers that do not behave: each hears what is wrong, the session lives."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import numpy as np
import pytest

from orchestrator import tracing
from orchestrator.errors import LlmError, MediaError, NotFoundError

LONG = "A sentence of some length that goes on for a while, so that it can be interrupted."


async def test_an_answer_of_emoji_is_the_language_models_fault(world: Any) -> None:
    session, client, _ = await world.join()
    world.responder.words = ["😀 ", "😀"]
    await session.ask("How are you?")
    await client.until_state("idle")
    (error,) = client.of("error")
    assert (error["code"], error["retryable"]) == ("llm", True)


@pytest.mark.parametrize("failure", [TimeoutError(), OSError("no encoder")])
async def test_a_viewer_is_told_that_the_media_failed(
    world: Any, failure: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    session, client, media = await world.join()
    media.fail = failure
    await session.say("Hello.")
    await client.until_state("idle")
    (error,) = client.of("error")
    assert error["message"] == "the media of the session failed"
    assert (str(failure) or "TimeoutError") in caplog.text


async def test_a_cut_that_fails_does_not_fail_the_next_turn(world: Any) -> None:
    session, client, media = await world.join()
    await session.say(LONG)
    await client.until_state("speaking")
    cut = media.cut

    async def broken(at: float) -> float:
        raise OSError("no encoder")

    media.cut = broken
    await session.interrupt()
    media.cut = cut
    await session.say("Again. And again.")
    await client.until_state("idle", 2)
    assert not client.of("error")
    assert [line["text"] for line in client.of("transcript")[1:]] == ["Again.", "And again."]


async def test_media_that_fails_for_good_is_in_the_log(
    world: Any, caplog: pytest.LogCaptureFixture
) -> None:
    session, client, media = await world.join()
    media.fail = ValueError("a bug")
    await session.say("Hello.")
    await client.until(lambda: session.broken)
    await asyncio.sleep(0)
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.exc_info is not None and record.exc_info[1] is media.fail


async def test_half_a_sample_interrupts_nobody(world: Any) -> None:
    session, client, _ = await world.join()
    await session.say(LONG)
    await client.until_state("speaking")
    with pytest.raises(MediaError):
        await session.speech(b"\0\0\0", final=False)
    assert session.state == "speaking"


async def test_a_viewers_own_speech_leaves_no_blanks_in_the_history(world: Any) -> None:
    session, client, _ = await world.join()
    loud = np.random.default_rng(1).integers(-9000, 9000, 4 * 16000).astype(np.int16).tobytes()
    for start in (0, 64000):
        await session.speech(loud[start : start + 64000], final=start > 0)
    await client.until_state("idle")
    assert len(client.of("transcript")) > 2  # parts, between which a blank would be put
    assert session.conversation.history == ()


async def test_nothing_is_begun_in_a_session_that_ends(world: Any) -> None:
    session, client, media = await world.join()
    await session.say(LONG)
    await client.until_state("speaking")
    cut = media.cut

    async def slow(at: float) -> float:
        await asyncio.sleep(0.1)
        return float(await cut(at))

    media.cut = slow
    world.voice.delay = 0.2
    saying = asyncio.create_task(session.say("Again."))
    await asyncio.sleep(0.05)
    closing = asyncio.create_task(session.close())
    await asyncio.wait({saying, closing})
    await closing
    assert saying.cancelled() or isinstance(saying.exception(), NotFoundError)
    assert world.talkers.count == 0
    with pytest.raises(NotFoundError):
        await session.say("And again.")


async def test_a_turn_cut_off_by_the_end_of_its_session_is_counted(world: Any) -> None:
    session, client, _ = await world.join()
    await session.say(LONG)
    await client.until_state("speaking")
    await session.close()
    assert b'musetalk_turns_total{result="interrupted"} 1.0' in world.telemetry.render()


async def test_a_turn_that_failed_is_one_in_its_trace(world: Any) -> None:
    pytest.importorskip("opentelemetry.sdk")
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    spans = InMemorySpanExporter()
    tracing.trace_with(SimpleSpanProcessor(spans))
    try:
        session, client, _ = await world.join()
        world.responder.error = LlmError("somebody's words")
        await session.ask("Hello?")
        await client.until_state("idle")
        world.responder.error = None
        await session.ask("Hello?")
        await client.until_state("idle", 2)
    finally:
        tracing.stop_tracing()
    failed, whole = (span for span in spans.get_finished_spans() if span.name == "turn")
    assert failed.attributes["error.type"] == "llm" and not failed.status.is_ok
    assert "somebody" not in failed.to_json()
    assert "error.type" not in whole.attributes and whole.status.is_unset

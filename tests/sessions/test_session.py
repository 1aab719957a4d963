from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from orchestrator.errors import LlmError, OverloadedError, SpeechError, UnavailableError, UsageError
from orchestrator.rendering.render import RenderOptions, render_speech
from orchestrator.rendering.timings import StageTimes

TEXT = "Hello there. How are you?"


async def test_idle_media_comes_first_and_stays_close_to_the_player(world: Any) -> None:
    _, client, media = await world.join()
    await client.until(lambda: len(client.messages) >= 4)
    assert [message.kind for message in client.messages[:4]] == ["init", "idle", "idle", "idle"]
    assert [message.sequence for message in client.messages[:4]] == [0, 1, 2, 3]
    assert media.end < 2.5


async def test_a_text_is_spoken_sentence_by_sentence(world: Any) -> None:
    session, client, media = await world.join()
    turn = await session.say(TEXT)
    await client.until_state("idle")
    assert world.voice.texts == ["Hello there.", "How are you?"]
    assert [event["state"] for event in client.of("state")] == ["thinking", "speaking", "idle"]
    said = client.of("transcript")
    assert [line["text"] for line in said] == world.voice.texts
    assert all(line["turn"] == turn and line["role"] == "avatar" for line in said)
    seconds = 0.06 * 12
    assert said[0]["end"] - said[0]["start"] == pytest.approx(seconds, abs=0.04)
    assert said[1]["start"] == pytest.approx(said[0]["end"] + 0.25, abs=0.08)
    (report,) = client.of("performance")
    assert report["frames_late"] == 0
    assert report["first_audio"] <= report["first_frame"] <= report["generation_time"]
    work = report["real_time_factor"] * report["frames"] / 25
    assert 0 < work < report["generation_time"], "waiting for the player is no work"
    assert set(report["stages"]) >= {"tts", "features", "queue", "inference", "compositing"}
    assert len(media.frames) == report["frames"]


async def test_live_frames_are_those_of_an_offline_render(world: Any) -> None:
    session, client, media = await world.join()
    await session.say("A few words.")
    await client.until_state("idle")
    (report,) = client.of("performance")
    assert report["frames_late"] == 0
    pcm = np.full(960 * 12, 112, np.int16)
    offline: list[list[Any]] = []
    for first_frame in range(2 * world.avatar.count):  # wherever its motion was
        chunks = render_speech(
            world.avatar,
            pcm,
            inference=world.model,
            options=RenderOptions(fps=25, batch=8),
            times=StageTimes(),
            first_frame=first_frame,
        )
        offline.append([frame async for chunk in chunks async for frame in _each(chunk.frames)])
    count = len(offline[0])
    live = np.stack(media.frames[:count])
    assert [np.array_equal(live, np.stack(frames)) for frames in offline].count(True) == 1


async def _each(frames: list[Any]) -> Any:
    for frame in frames:
        yield frame


async def test_progress_only_grows_and_is_complete(world: Any) -> None:
    session, client, _ = await world.join()
    world.responder.words = [f"Word number {number} is here. " for number in range(4)]
    await session.ask("Count.")
    await client.until_state("idle")
    for stage in ("llm", "tts", "avatar_generation", "encoding"):
        percents = [p["percent"] for p in client.of("progress") if p["stage"] == stage]
        assert percents == sorted(set(percents)) and percents[-1] == 100


async def test_the_media_never_runs_far_ahead_of_the_player(world: Any) -> None:
    session, client, media = await world.join()
    await session.say(
        "One sentence that is long enough for four seconds of speech, no less than that."
    )
    most = 0.0
    while not client.of("performance"):
        most = max(most, media.end - session.playout.position)
        await asyncio.sleep(0.01)
    assert 0.5 < most < 2.0


async def test_a_reply_is_spoken_while_it_is_written_and_remembered(world: Any) -> None:
    session, client, _ = await world.join()
    world.responder.words = ["Hello", " there.", " And", " more", " of", " it", " to", " come."]
    world.responder.pause = 0.1
    await session.ask("Who are you?")
    await client.until_state("speaking")
    assert world.responder.running == 1
    await client.until_state("idle")
    first = client.of("transcript")[0]
    assert (first["role"], first["text"]) == ("user", "Who are you?")
    history = [(message.role, message.content) for message in session.conversation.history]
    assert history == [
        ("user", "Who are you?"),
        ("assistant", "Hello there. And more of it to come."),
    ]
    await session.ask("And now?")
    await client.until_state("idle", 2)
    assert [message.content for message in world.responder.asked[1][1]] == [
        "Who are you?",
        "Hello there. And more of it to come.",
    ]


async def test_an_interruption_stops_all_work_and_only_what_was_heard_is_remembered(
    world: Any,
) -> None:
    session, client, media = await world.join()
    world.responder.words = [f"This is sentence number {number} of many." for number in range(9)]
    world.responder.pause = 0.02
    await session.ask("Talk.")
    await client.until(lambda: len(client.of("transcript")) >= 3)
    await asyncio.sleep(0.5)
    await session.interrupt()
    assert world.responder.running == world.voice.running == world.model.running == 0
    assert world.scheduler.running().get("lipsync", 0) == 0
    (flush,) = client.of("flush")[-1:]
    assert flush["from_pts"] - session.playout.position < 0.5
    assert client.of("state")[-1]["state"] == "idle"
    said = session.conversation.history[-1].content
    assert said.startswith("This is sentence number 0") and "number 8" not in said
    made = len(media.frames)
    batches = len(world.model.batches)
    await asyncio.sleep(0.7)
    assert len(media.frames) == made and len(world.model.batches) == batches
    assert client.messages[-1].kind == "idle"


async def test_a_new_text_interrupts_the_old_one(world: Any) -> None:
    session, client, _ = await world.join()
    await session.say("A rather long sentence that will not be heard to its end today.")
    await client.until_state("speaking")
    second = await session.say("Stop.")
    await client.until(lambda: client.of("state")[-1] == {"state": "idle", "turn": None})
    assert client.of("transcript")[-1]["turn"] == second
    assert [state["state"] for state in client.of("state")] == [
        "thinking", "speaking", "idle", "thinking", "speaking", "idle",
    ]  # fmt: skip


@pytest.mark.parametrize("part", ["llm", "voice", "model"])
async def test_whatever_fails_ends_the_turn_and_not_the_session(world: Any, part: str) -> None:
    session, client, _ = await world.join()
    if part == "llm":
        world.responder.error = LlmError("the model broke")
    elif part == "voice":
        world.voice.error = SpeechError("no voice")
    else:
        world.model.error = UsageError("nonsense")
    turn = await session.ask("Hello?")
    await client.until_state("idle")
    (error,) = client.of("error")
    assert error["turn"] == turn and error["message"]
    assert len(client.of("performance")) == 1
    assert world.talkers.count == 0
    world.responder.error = world.voice.error = world.model.error = None
    await session.say("Still here.")
    await client.until_state("idle", 2)
    assert client.of("transcript")[-1]["text"] == "Still here."


async def test_a_model_that_is_away_for_a_moment_delays_nothing_but_mouths(world: Any) -> None:
    session, client, media = await world.join()
    await session.say("A sentence of some length that goes on while the model is away for a while.")
    await client.until(lambda: len(media.frames) > 10)
    world.model.error = UnavailableError("away")
    await asyncio.sleep(3.0)
    world.model.error = None
    await client.until_state("idle")
    (report,) = client.of("performance")
    assert not client.of("error")
    assert 0 < report["frames_late"] < report["frames"]
    assert len(np.concatenate(media.sound)) == len(media.frames) * 1920


async def test_a_slow_model_gets_half_the_pictures_and_the_sound_does_not_wait(world: Any) -> None:
    session, client, _ = await world.join()
    world.model.delay = 0.05  # 20 frames a second
    await session.say("A sentence of some length that the model cannot render in time at all now.")
    await client.until_state("idle")
    starts = [message.start for message in client.messages if message.kind == "speech"]
    seconds = client.messages[-1].start - starts[0]
    (line,) = client.of("transcript")
    assert line["end"] - line["start"] == pytest.approx(0.06 * 74, abs=0.05)
    assert seconds < 0.06 * 74 + 1.5
    assert min(world.model.batches[2:-1]) <= 4  # every second frame of 8


async def test_economy_renders_every_second_frame_of_the_same_grid(world: Any) -> None:
    session, client, media = await world.join("economy")
    await session.say("Hello there you all.")
    await client.until_state("idle")
    spoken = 0.06 * 20 * 25
    assert len(media.frames) >= spoken
    assert sum(world.model.batches) == pytest.approx(spoken / 2, abs=1)
    assert all(a is b for a, b in zip(media.frames[:20:2], media.frames[1:20:2], strict=True))


async def test_talkers_beyond_the_limit_are_refused_before_any_work(world: Any) -> None:
    sessions = [await world.join() for _ in range(3)]
    for session, _, _ in sessions[:2]:
        await session.say("A sentence that takes a while to be said, so that two of us talk.")
    with pytest.raises(OverloadedError):
        await sessions[2][0].say("Me too.")
    assert "Me too." not in world.voice.texts
    await sessions[0][0].interrupt()
    await sessions[2][0].say("Me too.")
    await sessions[2][1].until_state("speaking")


async def test_a_client_that_does_not_confirm_gets_three_messages(world: Any) -> None:
    session, client, _ = await world.join()
    client.confirms = False
    await session.say(TEXT)
    await asyncio.sleep(1.0)
    unconfirmed = session.playout.outbox.unconfirmed
    assert unconfirmed == 3
    count = len(client.messages)
    await asyncio.sleep(0.5)
    assert len(client.messages) == count
    client.confirms = True
    for message in [*client.messages]:
        session.confirm(message.sequence)
    await client.until_state("idle")


async def test_a_client_that_comes_back_gets_what_it_lacks(world: Any) -> None:
    session, client, _ = await world.join()
    await session.say("A sentence that goes on while the client is away for a short time only.")
    await client.until_state("speaking")
    client.confirms = False
    await client.until(lambda: session.playout.outbox.unconfirmed == 3)
    session.detach(client)
    has = client.messages[-2].sequence
    await asyncio.sleep(0.3)
    again = type(client)()
    again.session = session
    assert await session.attach(again, has)
    await again.until_state("idle")
    assert again.messages[0].sequence == has + 1
    numbers = [message.sequence for message in again.messages]
    assert numbers == list(range(has + 1, has + 1 + len(numbers)))
    ends = [message.end for message in again.messages[:-1]]
    assert ends == pytest.approx([message.start for message in again.messages[1:]])


async def test_a_client_that_lost_its_media_starts_with_an_init_segment(world: Any) -> None:
    session, client, _ = await world.join()
    await session.say("A sentence that is cut off when its page is loaded again.")
    await client.until_state("speaking")
    again = type(client)()
    again.session = session
    assert not await session.attach(again, None)
    assert client.gone
    await again.until(lambda: len(again.messages) >= 2)
    assert [message.kind for message in again.messages[:2]] == ["init", "idle"]


async def test_broken_media_ends_the_turn_and_the_next_one_works(world: Any) -> None:
    session, client, media = await world.join()
    media.fail = OSError("no encoder")
    await session.say(TEXT)
    await client.until_state("idle")
    assert client.of("error")
    media.fail = None
    await session.say("Again.")
    await client.until_state("idle", 2)
    assert client.of("transcript")[-1]["text"] == "Again."


async def test_a_closed_session_leaves_no_task_behind(world: Any) -> None:
    before = len(asyncio.all_tasks())
    session, client, media = await world.join()
    await session.ask("Hello?")
    await client.until_state("speaking")
    await session.close()
    await asyncio.sleep(0.05)
    assert media.closed and client.gone
    assert len(asyncio.all_tasks()) == before
    assert world.talkers.count == world.responder.running == world.voice.running == 0

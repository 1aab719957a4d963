from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator
from typing import Any

import numpy as np
import psutil
import pytest

from orchestrator.errors import NotFoundError, OverloadedError, UsageError
from orchestrator.rendering.tasks import end
from orchestrator.sessions.registry import JoinRequest, Sessions


@pytest.fixture
async def sessions(world: Any) -> AsyncGenerator[Sessions, None]:
    made = world.registry()
    yield made
    await made.close()


async def join(sessions: Sessions, client: Any, **wishes: Any) -> Any:
    joined = await sessions.join(JoinRequest(**wishes), client)
    client.session = joined.session
    return joined


async def test_ids_and_tokens_cannot_be_guessed(sessions: Sessions, make_client: Any) -> None:
    joined = [await join(sessions, make_client()) for _ in range(3)]
    secrets = [secret for one in joined for secret in (one.session.id, one.token)]
    assert len(set(secrets)) == 6 and min(map(len, secrets)) >= 20
    assert sessions.count == 3 and sessions.states()["idle"] == 3


@pytest.mark.parametrize(
    ("wishes", "error"),
    [
        ({"avatar": "Nobody"}, NotFoundError),
        ({"profile": "ultra"}, UsageError),
        ({"language": "xx"}, UsageError),
        ({"voice": "Other"}, UsageError),
    ],
)
async def test_wishes_that_cannot_be_met_leave_no_session(
    sessions: Sessions, make_client: Any, wishes: Any, error: type[Exception]
) -> None:
    with pytest.raises(error):
        await join(sessions, make_client(), **wishes)
    assert sessions.count == 0


async def test_a_session_goes_on_after_a_short_absence(
    sessions: Sessions, make_client: Any
) -> None:
    client = make_client()
    first = await join(sessions, client)
    await client.until(lambda: len(client.messages) >= 3)
    first.session.detach(client)
    assert sessions.states()["away"] == 1
    again = make_client()
    joined = await join(
        sessions,
        again,
        session=first.session.id,
        token=first.token,
        last_sequence=client.messages[-1].sequence,
    )
    assert joined.session is first.session and joined.resumed
    await again.until(lambda: again.messages)
    assert again.messages[0].kind == "idle"
    assert again.messages[0].start == pytest.approx(client.messages[-1].end)


@pytest.mark.parametrize("token", [None, "", "wrong"])
async def test_nobody_else_gets_into_a_session(
    sessions: Sessions, make_client: Any, token: str | None
) -> None:
    client = make_client()
    first = await join(sessions, client)
    with pytest.raises(NotFoundError):
        await join(sessions, make_client(), session=first.session.id, token=token)
    assert first.session.client is client and not client.gone


async def test_a_session_whose_client_stays_away_ends(
    world: Any, sessions: Sessions, make_client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.sessions.registry.RESUME_SECONDS", 0.2)
    monkeypatch.setattr("orchestrator.sessions.registry._SWEEP_SECONDS", 0.05)
    sweeping = asyncio.create_task(sessions.sweep())
    client = make_client()
    first = await join(sessions, client)
    await first.session.ask("Hello?")
    await client.until_state("idle")
    first.session.detach(client)
    await client.until(lambda: world.medias[0].closed)
    assert sessions.count == 0
    again = make_client()
    joined = await join(sessions, again, session=first.session.id, token=first.token)
    assert joined.continued and not joined.resumed and joined.session is not first.session
    assert [message.role for message in joined.session.conversation.history] == [
        "user",
        "assistant",
    ]
    await end(sweeping)


async def test_somebody_who_left_while_spoken_to_keeps_no_place(
    world: Any, sessions: Sessions, make_client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.sessions.registry.TURN_SECONDS", 0.2)
    monkeypatch.setattr("orchestrator.sessions.registry._SWEEP_SECONDS", 0.05)
    sweeping = asyncio.create_task(sessions.sweep())
    client = make_client()
    first = await join(sessions, client)
    await first.session.say("A long sentence that goes on and on for a viewer who has left it.")
    await client.until_state("speaking")
    assert world.talkers.count == 1
    first.session.detach(client)
    await client.until(lambda: world.talkers.count == 0)
    assert sessions.states()["away"] == 1  # it may still come back to its conversation
    await end(sweeping)


async def test_a_conversation_goes_on_at_another_server(world: Any, make_client: Any) -> None:
    here, there = world.registry(), world.registry()  # one store
    client = make_client()
    first = await join(here, client, profile="economy", language="fr")
    await first.session.ask("Hello?")
    await client.until_state("idle")
    await here.close()
    assert client.gone
    again = make_client()
    joined = await join(there, again, session=first.session.id, token=first.token)
    assert joined.continued
    assert joined.session.profile.name == "economy"
    assert joined.session.conversation.language == "fr"
    await again.until_state("idle")  # it may have been spoken to where it was before
    await joined.session.ask("And now?")
    await again.until_state("idle", 2)
    assert [m.content for m in world.responder.asked[-1][1]] == ["Hello?", "Good day to you."]
    with pytest.raises(NotFoundError):
        await join(here, make_client(), session=first.session.id, token="wrong")
    await there.close()


async def test_leaving_forgets_the_conversation(
    world: Any, sessions: Sessions, make_client: Any
) -> None:
    client = make_client()
    first = await join(sessions, client)
    await first.session.say("Hello.")
    await client.until_state("idle")
    await sessions.leave(first.session)
    assert sessions.count == 0
    assert await world.conversations.load(first.session.id) is None


async def test_too_many_sessions_are_refused(
    world: Any, sessions: Sessions, make_client: Any
) -> None:
    world.settings = world.settings.model_copy(update={"max_sessions": 2})
    few = world.registry()
    for _ in range(2):
        await join(few, make_client())
    with pytest.raises(OverloadedError):
        await join(few, make_client())
    await few.close()


async def test_coming_and_going_leaves_nothing_behind(
    world: Any, sessions: Sessions, make_client: Any
) -> None:
    async def cycle(number: int) -> None:
        client = make_client()
        joined = await join(sessions, client)
        if number % 3 == 0:
            await joined.session.ask("Hello?")
        if number % 2:
            await asyncio.sleep(0.002)
        await sessions.leave(joined.session)

    for number in range(20):
        await cycle(number)
    process = psutil.Process()
    tasks, files = len(asyncio.all_tasks()), process.num_fds()
    gc.collect()
    memory = process.memory_info().rss
    for number in range(1000):
        await cycle(number)
    world.medias.clear()
    gc.collect()
    assert sessions.count == world.talkers.count == 0
    assert len(asyncio.all_tasks()) == tasks
    assert process.num_fds() <= files + 2
    assert process.memory_info().rss - memory < 30 << 20
    assert world.responder.running == world.voice.running == world.model.running == 0


async def test_interrupted_turns_leave_nothing_behind(
    world: Any, sessions: Sessions, make_client: Any
) -> None:
    client = make_client()
    joined = await join(sessions, client)
    tasks = len(asyncio.all_tasks())
    for number in range(200):
        await joined.session.ask("Tell me something long, please.")
        await asyncio.sleep(0.002 * (number % 8))
        await joined.session.interrupt()
    assert len(asyncio.all_tasks()) <= tasks + 2  # waiting for something to do; storing
    assert world.talkers.count == 0
    assert world.responder.running == world.voice.running == world.model.running == 0
    assert world.scheduler.running().get("lipsync", 0) == 0
    await joined.session.say("Still here.")
    await client.until(lambda: client.of("transcript")[-1]["text"] == "Still here.")


async def test_sessions_speak_their_own_words(world: Any, make_client: Any) -> None:
    world.settings = world.settings.model_copy(update={"max_sessions": 20})
    world.talkers.limit = 20
    sessions = world.registry()
    clients = [make_client() for _ in range(10)]
    for number, client in enumerate(clients):
        joined = await join(sessions, client)
        await joined.session.say("a" * (10 + number))
    for client in clients:
        await client.until_state("idle")
    # The voice's samples are 100 and the length of the text.
    for number, media in enumerate(world.medias[-10:]):
        sound = np.concatenate(media.sound)
        assert set(np.unique(sound[9600:19200])) <= {109 + number, 110 + number, 111 + number}
    assert [c.of("transcript")[0]["text"] for c in clients] == ["a" * (10 + n) for n in range(10)]
    await sessions.close()


async def test_who_is_cancelled_while_leaving_leaves_nothing_at_work(
    sessions: Sessions, make_client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = (await join(sessions, make_client())).session
    close, closed = session.close, asyncio.Event()

    async def slowly() -> None:
        await asyncio.sleep(0.05)
        await close()
        closed.set()

    monkeypatch.setattr(session, "close", slowly)
    leaving = asyncio.create_task(sessions.leave(session))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.wait({leaving})
    assert leaving.cancelled()
    await asyncio.wait_for(closed.wait(), 10)
    assert sessions.count == 0

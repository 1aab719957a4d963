"""Clients that come, come back and go at the wrong moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from orchestrator.errors import StoppingError
from orchestrator.rendering.tasks import end
from orchestrator.sessions.conversation import Conversation, hash_token
from orchestrator.sessions.registry import JoinRequest, Sessions

STORED = Conversation("a-stored-session", hash_token("token"), "Ada", "quality", "en")
AGAIN = JoinRequest(session=STORED.id, token="token")
LONG = "A long sentence that goes on and on for a viewer who is somewhere else by now."


@pytest.fixture
async def sessions(world: Any) -> AsyncGenerator[Sessions, None]:
    """Sessions whose media takes a moment to be made."""
    made = world.registry()
    make = made._make_media

    async def slowly(avatar: Any, profile: Any) -> Any:
        await asyncio.sleep(0.05)
        return await make(avatar, profile)

    made._make_media = slowly
    yield made
    await made.close()


async def join(sessions: Sessions, client: Any) -> Any:
    joined = await sessions.join(JoinRequest(), client)
    client.session = joined.session
    return joined


@pytest.fixture
async def sweeping(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> AsyncGenerator[None, None]:
    monkeypatch.setattr("orchestrator.sessions.registry._SWEEP_SECONDS", 0.05)
    sweep = asyncio.create_task(sessions.sweep())
    yield
    await end(sweep)


async def test_a_conversation_that_two_connections_go_on_with_is_one_session(
    world: Any, sessions: Sessions, make_client: Any
) -> None:
    await world.conversations.save(STORED)
    clients = [make_client(), make_client()]
    first, second = await asyncio.gather(*(sessions.join(AGAIN, client) for client in clients))
    assert first.session is second.session and sessions.count == 1
    assert [client.gone for client in clients].count(True) == 1
    await sessions.close()
    assert [media.closed for media in world.medias] == [True, True]


async def test_who_joins_while_the_server_stops_leaves_nothing(
    world: Any, sessions: Sessions, make_client: Any
) -> None:
    joining = asyncio.create_task(sessions.join(JoinRequest(), make_client()))
    await asyncio.sleep(0.02)
    await sessions.close()
    with pytest.raises(StoppingError):
        await joining
    assert sessions.count == 0 and world.medias[0].closed


async def test_what_was_heard_before_the_server_stopped_is_kept(
    world: Any, sessions: Sessions, make_client: Any
) -> None:
    client = make_client()
    session = (await join(sessions, client)).session
    world.responder.words = [LONG]
    await session.ask("Are you there?")
    await client.until(lambda: session.state == "speaking" and session.playout.position > 2.5)
    await sessions.close()
    asked, answered = (await world.conversations.load(session.id)).history
    assert asked.content == "Are you there?"
    assert answered.content.startswith("A long sentence") and answered.content.endswith("…")


async def test_a_client_that_cannot_take_over_leaves_a_session_that_ends(
    sessions: Sessions, make_client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.sessions.turns._END_SECONDS", 0.1)
    client = make_client()
    session = (await join(sessions, client)).session
    await session.say(LONG)
    await client.until_state("speaking")

    async def stuck() -> float:
        await asyncio.sleep(10)
        return 0.0

    monkeypatch.setattr(session.playout, "interrupt", stuck)
    with pytest.raises(TimeoutError):
        await session.attach(make_client(), None)
    assert client.gone and session.client is None
    assert session.away_since is not None  # so that the sweep finds it


async def test_of_two_who_take_over_at_a_time_one_is_sent_away(
    world: Any, sessions: Sessions, make_client: Any
) -> None:
    client = make_client()
    session = (await join(sessions, client)).session
    await session.say(LONG)
    await client.until_state("speaking")
    others = [make_client(), make_client()]
    await asyncio.gather(*(session.attach(other, None) for other in others))
    assert client.gone and [other.gone for other in others] == [True, False]
    assert session.client is others[1]


async def test_who_comes_back_hears_what_the_session_does_now(
    sessions: Sessions, make_client: Any
) -> None:
    client = make_client()
    first = await join(sessions, client)
    turn = await first.session.say("A few words that are soon over.")
    await client.until_state("speaking")
    first.session.detach(client)
    again = make_client()
    last = client.messages[-1].sequence
    back = JoinRequest(session=first.session.id, token=first.token, last_sequence=last)
    again.session = (await sessions.join(back, again)).session
    assert again.of("state") == [{"state": "speaking", "turn": turn}]
    first.session.detach(again)
    await first.session.interrupt()
    third = make_client()
    await sessions.join(back, third)
    assert third.of("state") == [{"state": "idle", "turn": None}]


@pytest.mark.parametrize("how", ["paused", "unconfirmed"])
async def test_a_player_that_stands_still_keeps_no_place(
    world: Any,
    sessions: Sessions,
    make_client: Any,
    sweeping: None,
    monkeypatch: pytest.MonkeyPatch,
    how: str,
) -> None:
    monkeypatch.setattr("orchestrator.sessions.registry.HALT_SECONDS", 2.0)
    client = make_client()
    session = (await join(sessions, client)).session
    turn = await session.say(LONG)
    await client.until_state("speaking")
    client.confirms = how == "paused"
    halted = session.playout.position

    async def stand_still() -> None:
        while True:
            if how == "paused":
                session.playhead(halted)
            await asyncio.sleep(0.05)

    standing = asyncio.create_task(stand_still())
    await client.until_state("idle")
    await end(standing)
    assert world.talkers.count == 0
    (error,) = client.of("error")
    assert (error["code"], error["turn"]) == ("deadline", turn)
    assert b'musetalk_turns_total{result="deadline"} 1.0' in world.telemetry.render()


async def test_a_player_that_moves_is_left_alone(
    world: Any, sessions: Sessions, make_client: Any, sweeping: None, monkeypatch: Any
) -> None:
    monkeypatch.setattr("orchestrator.sessions.registry.HALT_SECONDS", 1.0)
    client = make_client()
    session = (await join(sessions, client)).session
    world.voice.delay = 2.0  # idle video goes on meanwhile
    await session.say(LONG)
    await client.until_state("idle")
    assert not client.of("error")


async def test_one_session_that_does_not_end_keeps_no_other(
    world: Any,
    sessions: Sessions,
    make_client: Any,
    sweeping: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("orchestrator.sessions.registry.RESUME_SECONDS", 0.2)
    clients = [make_client(), make_client()]
    first, second = [(await join(sessions, client)).session for client in clients]
    close = first.close

    async def broken() -> None:
        await close()
        raise RuntimeError("a bug")

    monkeypatch.setattr(first, "close", broken)
    first.detach(clients[0])
    await clients[0].until(lambda: sessions.count == 1)
    second.detach(clients[1])
    await clients[1].until(lambda: world.medias[1].closed)
    assert sessions.count == 0


async def test_all_sessions_end_though_one_cannot(
    world: Any,
    sessions: Sessions,
    make_client: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    first, second = [(await join(sessions, make_client())).session for _ in range(2)]
    close, slow = first.close, second.close

    async def broken() -> None:
        await close()
        raise RuntimeError("a bug")

    async def slowly() -> None:
        await asyncio.sleep(0.1)
        await slow()

    monkeypatch.setattr(first, "close", broken)
    monkeypatch.setattr(second, "close", slowly)
    await sessions.close()
    assert [media.closed for media in world.medias] == [True, True]
    assert "a bug" in caplog.text

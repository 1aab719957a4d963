"""The Socket.IO surface with its real client; sessions are fakes that only note what they get."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator
from types import SimpleNamespace
from typing import Any

import pytest
import socketio
import uvicorn

from orchestrator.api import live
from orchestrator.api.admission import Admission
from orchestrator.api.http import Service, create_app
from orchestrator.errors import OverloadedError
from orchestrator.sessions.outbox import MediaMessage
from orchestrator.settings import Settings
from orchestrator.telemetry import Telemetry


class FakeSession:
    def __init__(self) -> None:
        self.id = "session"
        self.client: Any = None
        self.avatar = SimpleNamespace(name="Ada", width=96, height=64)
        self.profile = SimpleNamespace(name="quality", fps=25.0)
        self.mime = "video/mp4"
        self.calls: list[tuple[Any, ...]] = []
        self.confirmed: list[int] = []
        self.error: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def _call(self, *what: Any) -> str:
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        self.calls.append(what)
        return "turn"

    async def say(self, text: str) -> str:
        return await self._call("say", text)

    async def ask(self, text: str) -> str:
        return await self._call("ask", text)

    async def speech(self, audio: bytes, *, final: bool) -> str:
        return await self._call("speech", audio, final)

    async def interrupt(self) -> None:
        await self._call("interrupt")

    def playhead(self, position: float) -> None:
        self.calls.append(("playhead", position))

    def confirm(self, sequence: int) -> None:
        self.confirmed.append(sequence)

    def detach(self, client: Any) -> None:
        self.calls.append(("detach",))
        self.client = None


class FakeSessions:
    retry_after = 7
    live_responder = False

    def __init__(self) -> None:
        self.session = FakeSession()
        self.requests: list[Any] = []
        self.left = 0

    async def join(self, request: Any, client: Any) -> Any:
        self.requests.append(request)
        self.session.client = client
        client.media(MediaMessage(0, "init", b"init", 0.0, 0.0))
        client.media(MediaMessage(1, "idle", b"idle", 0.0, 0.4))
        return SimpleNamespace(session=self.session, token="t", resumed=False, continued=False)

    async def leave(self, session: Any) -> None:
        self.left += 1


class Server:
    def __init__(self, url: str, service: Service, sessions: FakeSessions) -> None:
        self.url, self.service, self.sessions = url, service, sessions
        self.session = sessions.session


@pytest.fixture
async def server(tmp_path: Any) -> AsyncGenerator[Server, None]:
    telemetry = Telemetry()
    settings = Settings(_env_file=None, cache_dir=tmp_path, max_talkers=2.0)
    service = Service(settings, telemetry, Admission(1, telemetry))
    sessions: Any = FakeSessions()
    service.sessions = sessions
    listener = socket.create_server(("127.0.0.1", 0))
    web = uvicorn.Server(
        uvicorn.Config(
            live.attach(service, create_app(service)),
            log_config=None,
            ws_max_size=live.MAX_MESSAGE_BYTES,
            ws_per_message_deflate=False,
        )
    )
    serving = asyncio.create_task(web._serve([listener]))
    yield Server("http://127.0.0.1:{1}".format(*listener.getsockname()), service, sessions)
    web.should_exit = True
    await serving


class Client:
    def __init__(self) -> None:
        self.io = socketio.AsyncClient(reconnection=False)
        self.order: list[str] = []
        self.io.on("media", self._media)

    async def _media(self, message: dict[str, Any]) -> bool:
        self.order.append(message["kind"])
        return True

    async def call(self, event: str, *payload: Any) -> dict[str, Any]:
        answer: dict[str, Any] = await self.io.call(event, *payload, timeout=10)
        return answer

    async def join(self) -> dict[str, Any]:
        answered: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()

        def note(answer: dict[str, Any]) -> None:
            self.order.append("answer")
            answered.set_result(answer)

        await self.io.emit("join", {}, callback=note)
        return await asyncio.wait_for(answered, 10)


@pytest.fixture
async def client(server: Server) -> AsyncGenerator[Client, None]:
    made = Client()
    await made.io.connect(server.url, transports=["websocket"])
    yield made
    await made.io.disconnect()


async def until(condition: Any) -> None:
    for _ in range(500):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not happen")


async def test_media_comes_after_the_answer_and_is_confirmed(
    server: Server, client: Client
) -> None:
    answer = await client.join()
    await until(lambda: len(client.order) == 3)
    assert client.order == ["answer", "init", "idle"]
    assert answer["ok"] and answer["generated_notice"] is True
    assert {"session", "token", "mime", "fps", "width", "height", "resumed"} <= set(answer)
    await until(lambda: server.session.confirmed == [0, 1])


async def test_commands_reach_the_session_in_order(server: Server, client: Client) -> None:
    await client.join()
    assert (await client.call("say", {"text": "Hello"})) == {"ok": True, "turn": "turn"}
    await client.call("ask", {"text": "Why?"})
    await client.call("speech", {"audio": b"\0\0", "final": True})
    await client.call("interrupt", {})
    await client.call("interrupt")
    await client.io.emit("playhead", {"time": 1.5, "buffered": 1})
    await client.call("leave", {})
    assert server.session.calls == [
        ("say", "Hello"),
        ("ask", "Why?"),
        ("speech", b"\0\0", True),
        ("interrupt",),
        ("interrupt",),
        ("playhead", 1.5),
        ("detach",),
    ]
    assert server.sessions.left == 1


NONSENSE: list[Any] = [
    None,
    0,
    "text",
    [],
    [{"text": "x"}],
    {},
    {"text": None},
    {"text": 7},
    {"text": ["x"]},
    {"text": ""},
    {"text": b"bytes"},
    {"audio": "text"},
    {"audio": b"\0\0", "final": "yes"},
    {"audio": b"\0" * (live.MAX_AUDIO_BYTES + 2)},
    {"session": 5},
    {"last_sequence": -1},
    {"last_sequence": "1"},
    {"avatar": "x" * 1000},
]


@pytest.mark.parametrize("event", ["join", "say", "ask", "speech"])
async def test_nonsense_is_refused_and_harms_nobody(
    server: Server, client: Client, event: str
) -> None:
    await client.join()
    server.session.calls.clear()
    server.sessions.requests.clear()
    refused = 0
    for payload in NONSENSE:
        answer = await client.call(event, payload)
        if not answer["ok"]:
            refused += 1
            assert answer["error"]["code"] == "bad_request" and answer["error"]["message"]
    # What a join does not know it does not read; nothing else in the list is a valid command.
    expected = 0 if event != "join" else len(NONSENSE) - refused
    assert len(server.sessions.requests) == expected and refused >= 8
    assert all(call[0] == "detach" for call in server.session.calls)
    for report in [*NONSENSE, {"time": "x"}, {"time": float("nan")}, {"time": -1.0}]:
        await client.io.emit("playhead", report)
    assert (await client.call("join", {}))["ok"]
    assert (await client.call("say", {"text": "Hello"}))["ok"]
    assert not any(call[0] == "playhead" for call in server.session.calls)


async def test_before_joining_there_is_nothing_to_command(server: Server, client: Client) -> None:
    for event, payload in [("say", {"text": "Hi"}), ("interrupt", {}), ("leave", {})]:
        answer = await client.call(event, payload)
        assert (
            answer["error"]["code"] == "bad_request" and answer["error"]["remedy"] == "join first"
        )
    await client.io.emit("playhead", {"time": 1.0, "buffered": 1.0})
    assert server.session.calls == []


async def test_a_refusal_says_when_to_try_again(server: Server, client: Client) -> None:
    await client.join()
    server.session.error = OverloadedError("full", remedy="wait")
    error = (await client.call("say", {"text": "Hello"}))["error"]
    assert error == {
        "code": "overloaded",
        "message": "full",
        "remedy": "wait",
        "retryable": True,
        "retry_after": 7,
    }


async def test_an_unforeseen_error_tells_nothing_of_the_inside(
    server: Server, client: Client
) -> None:
    await client.join()
    server.session.error = RuntimeError("password is 4711")
    answer = await client.call("say", {"text": "Hello"})
    assert answer["error"]["code"] == "internal" and "4711" not in str(answer)
    server.session.error = None
    assert (await client.call("say", {"text": "Hello"}))["ok"]


async def test_until_triton_is_there_clients_are_told_to_wait(
    server: Server, client: Client
) -> None:
    server.service.sessions = None
    answer = await client.join()
    assert answer["error"]["retryable"] and answer["error"]["retry_after"] > 0


async def test_a_flood_of_events_is_refused(server: Server, client: Client) -> None:
    await client.join()
    server.session.gate.clear()
    calls = [asyncio.create_task(client.call("say", {"text": str(n)})) for n in range(40)]
    await until(lambda: sum(call.done() for call in calls) >= 20)
    server.session.gate.set()
    answers = await asyncio.gather(*calls)
    refused = [answer for answer in answers if not answer["ok"]]
    assert len(refused) == 24 and {r["error"]["code"] for r in refused} == {"overloaded"}
    assert len(server.session.calls) == 16


async def test_a_message_that_is_too_large_ends_only_its_connection(
    server: Server, client: Client
) -> None:
    other = Client()
    await other.io.connect(server.url, transports=["websocket"])
    await other.join()
    await client.io.emit("speech", {"audio": bytes(live.MAX_MESSAGE_BYTES + 1)})
    await until(lambda: not client.io.connected)
    assert (await other.call("say", {"text": "Hello"}))["ok"]
    await other.io.disconnect()


async def test_a_lost_connection_leaves_the_session_waiting(server: Server, client: Client) -> None:
    await client.join()
    await client.io.disconnect()
    await until(lambda: ("detach",) in server.session.calls)
    assert server.sessions.left == 0
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("client-")]


async def test_speech_is_counted_also_where_the_server_hangs_up(
    server: Server, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[float] = []

    async def count_seconds(owner: str, seconds: float) -> None:
        counted.append(seconds)

    monkeypatch.setattr(server.service.access, "count_seconds", count_seconds)
    await client.join()
    connection = server.session.client
    connection.media(MediaMessage(2, "speech", b"speech", 0.4, 1.5))
    connection.hang_up()  # as when another connection takes the session
    await until(lambda: not client.io.connected)
    await until(lambda: counted)
    assert counted == [1.5]
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("client-")]


async def test_long_polling_is_not_served(server: Server) -> None:
    polling = socketio.AsyncClient(reconnection=False)
    with pytest.raises(socketio.exceptions.ConnectionError):
        await polling.connect(server.url, transports=["polling"])


async def test_pages_of_others_are_refused(server: Server) -> None:
    foreign = socketio.AsyncClient(reconnection=False)
    with pytest.raises(socketio.exceptions.ConnectionError):
        await foreign.connect(
            server.url, transports=["websocket"], headers={"Origin": "https://evil.example"}
        )
    await foreign.disconnect()

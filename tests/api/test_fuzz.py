"""Noise on Socket.IO and gRPC beside a viewer who talks: nobody else notices, nothing stays.

``MUSETALK_FUZZ_MESSAGES`` is how many messages each of the two gets.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiohttp
import grpc
import pytest

from loadtests.viewer import Viewer
from orchestrator.api import live
from orchestrator.api.musetalk.v1 import musetalk_pb2 as pb
from orchestrator.api.rpc.server import NAME
from orchestrator.sessions import registry

MESSAGES = int(os.environ.get("MUSETALK_FUZZ_MESSAGES", "300"))
AT_ONCE = 8 if MESSAGES < 1000 else 24
BROKEN = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS}
METHODS = {
    "Speak": "SpeakRequest",
    "Converse": "ConverseRequest",
    "ListAvatars": "ListAvatarsRequest",
    "GetAvatar": "GetAvatarRequest",
    "AddAvatar": "AddAvatarRequest",
    "DeleteAvatar": "DeleteAvatarRequest",
    "CreateVideo": "CreateVideoRequest",
    "GetVideo": "GetVideoRequest",
    "ListVideos": "ListVideosRequest",
    "CancelVideo": "CancelVideoRequest",
    "DeleteVideo": "DeleteVideoRequest",
    "DownloadVideo": "DownloadVideoRequest",
}


NUMBERS = [0, -1, 1, 2**31, 2**63, 2**64, -(2**200), 10**400, 0.5, 1e308, -0.0]
NUMBERS += [float("nan"), float("inf"), float("-inf")]
TEXTS = ["", "Hi.", "a", "\0", chr(0xD800), "../../x", "ada", "quality", "en", "💥" * 9]
TEXTS += ["x" * 3000]
EVENTS = ["join", "join", "say", "say", "ask", "speech", "interrupt", "leave"]
EVENTS += ["playhead", "playhead", "media", "connect", "disconnect", "x", ""]


class Place:
    """A service on both doors."""

    def __init__(self, running: Any, url: str, channel: Any, live_server: Any) -> None:
        self.service, self.inference = running.service, running.inference
        self.url, self.channel, self.live = url, channel, live_server


@pytest.fixture
def open_place(start_service: Any, open_doors: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(registry, "RESUME_SECONDS", 0.5)

    @asynccontextmanager
    async def opened() -> AsyncIterator[Place]:
        async with start_service(max_videos_queued=1, max_talkers=200) as running:
            service = running.service
            made: list[Any] = []
            register = live.Events.register

            def note(events: Any) -> None:
                made.append(events._server)
                register(events)

            monkeypatch.setattr(live.Events, "register", note)
            async with open_doors(service) as (url, channel):
                yield Place(running, url, channel, made[0])

    return opened


@asynccontextmanager
async def talkative(place: Place) -> AsyncGenerator[list[str], None]:
    """A viewer who talks during the block, of whose turns it is told; nothing may disturb it."""
    async with Viewer(place.url) as viewer:
        turns: list[str] = []

        async def talk() -> None:
            while True:
                turn = await viewer.begin("say", {"text": "I am still here."})
                await viewer.idle_again(turn)
                turns.append(turn)

        talking = asyncio.create_task(talk())
        try:
            yield turns
        finally:
            talking.cancel()
            with suppress(asyncio.CancelledError):
                await talking  # raises what ended it
        turn = await viewer.begin("say", {"text": "And I stay."})
        await viewer.idle_again(turn)
        assert viewer.of("error") == []
        assert viewer.problems == []
        for turn in turns:
            assert sum(one.kind == "speech" for one in viewer.media) and viewer.of(
                "performance", turn
            )


async def nothing_is_left(place: Place, before: int) -> None:
    """Sessions, renders and tasks of the others end within seconds."""

    def left() -> Any:
        tasks = [task for task in asyncio.all_tasks() if task.get_name().startswith("client-")]
        return [
            place.service.sessions.count,
            place.service.admission._taken,
            place.inference.running,
            len(tasks),
            len(place.live.environ),
            len(place.live._binary_packet),
            len(asyncio.all_tasks()) > before + 8,
        ]

    for _ in range(200):
        if not any(left()):
            return
        await asyncio.sleep(0.05)
    names = sorted(str(task.get_coro()) for task in asyncio.all_tasks())
    raise AssertionError((left(), before, names))


def complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the service or asyncio did not foresee."""
    ours = ("musetalk", "asyncio", "uvicorn", "grpc")
    return [
        f"{record.name}: {record.getMessage()} {record.exc_info}"
        for record in caplog.records
        if record.levelno >= logging.ERROR and record.name.startswith(ours)
    ]


class Chance(random.Random):
    """Makes things up."""

    def number(self) -> Any:
        return self.choice([*NUMBERS, self.random() * 100])

    def text(self) -> str:
        made = "".join(chr(self.randrange(1, 0x500)) for _ in range(self.randrange(40)))
        return self.choice([*TEXTS, made])

    def value(self, depth: int = 0) -> Any:
        kind = self.randrange(9 if depth < 4 else 6)
        if kind < 2:
            return self.text()
        if kind < 4:
            return self.number()
        if kind < 6:
            return self.choice([None, True, False, {"_placeholder": True, "num": self.number()}])
        if kind == 6:
            return [self.value(depth + 1) for _ in range(self.randrange(5))]
        names = ["text", "audio", "final", "avatar", "voice", "profile", "session", "token"]
        names += ["last_sequence", "language", "system_prompt", "time", "buffered", self.text()]
        return {self.choice(names): self.value(depth + 1) for _ in range(self.randrange(5))}

    def packets(self) -> list[str | bytes]:
        """One message of a Socket.IO client, with what follows it."""
        event = self.choice(EVENTS)
        good: Any = {"text": self.text(), "time": self.number(), "buffered": 1.0}
        if event == "join":
            good = self.choice([{}, {"avatar": "ada"}, {"session": self.text(), "token": "x"}])
        body = [event, *(self.choice([good, self.value()]) for _ in range(self.randrange(3)))]
        written = json.dumps(body)
        kind = self.randrange(12)
        if kind < 6:
            return [f"42{self.choice(['', self.randrange(99), 10**30])}{written}"]
        if kind == 6:
            deep = self.choice([50, 5000, 30_000])
            return [f'42["{event}",{"[" * deep}{"]" * deep}]']
        if kind == 7:
            file = {"audio": {"_placeholder": True, "num": self.choice([0, 0, 1, -1, "x", 1e9])}}
            sound = self.randbytes(self.choice([0, 1, 320, 640, 70_000]))
            count = self.choice([1, 1, 1, 2, 0, 99])
            head = f"45{count}-{self.randrange(9)}{json.dumps(['speech', file | {'final': True}])}"
            return [head, *[sound] * self.randrange(3)]
        if kind == 8:
            return [written[: self.randrange(len(written))], f"42{written[:-1]}"]
        if kind == 9:
            start = self.choice(
                ["40", "40/admin,", "41", "43", "4399[1]", "44", "46", "1", "2", "3"]
            )
            return [self.choice([start + "probe", start, start + written, "5", "6", "b4AAA", "4"])]
        if kind == 10:
            return [self.randbytes(self.randrange(1, 2000))]
        return ["".join(chr(self.randrange(32, 0x3000)) for _ in range(self.randrange(1, 60)))]

    def message(self, name: str) -> bytes:
        """One message of a gRPC client, mostly of that type."""
        if self.random() < 0.15:
            return self.randbytes(self.randrange(80))
        if self.random() < 0.05:
            return self._nested()
        known: dict[str, list[Any]] = {
            "SpeakRequest": [
                pb.SpeakRequest(text="Hi.", fps=self.choice([0, 7, 25, 2**32 - 1])),
                pb.SpeakRequest(text=self._said(), avatar=self._said(), output=self.randrange(9)),
                pb.SpeakRequest(audio=self.randbytes(self.randrange(3000))),
            ],
            "ConverseRequest": [
                pb.ConverseRequest(join=pb.Join(avatar=self.choice(["", "ada", "../x"]))),
                pb.ConverseRequest(join=pb.Join(profile=self._said(), language=self._said())),
                pb.ConverseRequest(say=pb.Say(text=self._said())),
                pb.ConverseRequest(ask=pb.Ask(text=self._said())),
                pb.ConverseRequest(speech=pb.Speech(pcm=self.randbytes(self.randrange(9000)))),
                pb.ConverseRequest(speech=pb.Speech(pcm=bytes(640), final=True)),
                pb.ConverseRequest(interrupt=pb.Interrupt()),
                pb.ConverseRequest(playhead=pb.Playhead(time=self._real())),
            ],
            "AddAvatarRequest": [
                pb.AddAvatarRequest(about=pb.NewAvatar(name=self._said(), consent="b")),
                pb.AddAvatarRequest(data=self.randbytes(self.randrange(5000))),
            ],
            "CreateVideoRequest": [
                pb.CreateVideoRequest(text=self._said(), profile="economy", fps=9),
                pb.CreateVideoRequest(audio=self.randbytes(90), idempotency_key=self._said()),
            ],
            "ListVideosRequest": [pb.ListVideosRequest(limit=2**32 - 1, before=self._said())],
        }
        chosen = known.get(name)
        made = self.choice(chosen) if chosen else pb.GetVideoRequest(id=self._said())
        noise = bytearray(made.SerializeToString())
        if noise and self.random() < 0.3:
            for _ in range(self.randrange(1, 4)):
                noise[self.randrange(len(noise))] = self.randrange(256)
        return bytes(noise)

    def _said(self) -> str:
        return self.text().encode(errors="ignore").decode()

    def _real(self) -> float:
        number = self.number()
        return float(number) if isinstance(number, float) or abs(number) < 2**1000 else 1e308

    def _nested(self) -> bytes:
        """A group in a group, 500 deep: more than a parser follows."""
        return b"\x0b" * 500 + b"\x0c" * 500


async def test_socketio_noise_harms_nobody(
    open_place: Any, caplog: pytest.LogCaptureFixture
) -> None:
    chance, sent, lost = Chance(5), 0, 0

    async def noisy(web: aiohttp.ClientSession, url: str, turns: list[str]) -> None:
        nonlocal sent, lost
        while sent < MESSAGES or not turns:
            async with web.ws_connect(f"{url}/socket.io/?EIO=4&transport=websocket") as ws:
                await ws.receive(timeout=10)
                await ws.send_str("40")
                for _ in range(chance.randrange(1, 60)):
                    for packet in chance.packets():
                        if isinstance(packet, bytes):
                            await ws.send_bytes(packet)
                        else:
                            await ws.send_str(packet.encode(errors="replace").decode())
                    sent += 1
                    with suppress(TimeoutError):
                        while (await ws.receive(timeout=0.002)).type == aiohttp.WSMsgType.BINARY:
                            pass
                    if ws.closed:
                        break
                lost += ws.closed
                if chance.random() < 0.5:
                    assert ws._writer.transport is not None
                    ws._writer.transport.abort()

    async with open_place() as place:
        before = len(asyncio.all_tasks())
        async with talkative(place) as turns, aiohttp.ClientSession() as web:
            everybody = (noisy(web, place.url, turns) for _ in range(AT_ONCE))
            done = await asyncio.gather(*everybody, return_exceptions=True)
            assert [
                e for e in done if e and not isinstance(e, (OSError, aiohttp.ClientError))
            ] == []
        await nothing_is_left(place, before)
    assert sent >= MESSAGES and lost
    assert complaints(caplog) == []


async def test_grpc_noise_harms_nobody(open_place: Any, caplog: pytest.LogCaptureFixture) -> None:
    chance, sent = Chance(7), 0
    statuses: dict[grpc.StatusCode, int] = {}

    async def call(place: Place) -> None:
        nonlocal sent
        method = chance.choice(list(METHODS))
        stream = method in ("Converse", "AddAvatar")
        count = chance.randrange(9) if stream else chance.choice([0, 1, 1, 1, 1, 2])
        messages = [chance.message(METHODS[method]) for _ in range(count)]
        if method == "Converse" and chance.random() < 0.7:
            messages.insert(0, pb.ConverseRequest(join=pb.Join()).SerializeToString())
        limit = chance.choice([0.02, 0.3, 2, 5])
        made = place.channel.stream_stream(f"/{NAME}/{method}")(iter(messages), timeout=limit)
        sent += len(messages)
        leaves = chance.random() < 0.2
        try:
            async for _ in made:
                if leaves:
                    made.cancel()
            status = grpc.StatusCode.OK
        except asyncio.CancelledError:
            status = grpc.StatusCode.CANCELLED
        except grpc.aio.AioRpcError as error:
            status = error.code()
            words = (method, messages, error.details())
            assert ("code", "internal") not in tuple(error.trailing_metadata() or ()), words
            # gRPC itself refuses a second message where a method takes one, and its client says
            # this of messages for a call that the service has ended.
            theirs = (not stream and count != 1) or error.details() == "Internal error from Core"
            assert status not in BROKEN or theirs, words
        statuses[status] = statuses.get(status, 0) + 1

    async def noisy(place: Place, turns: list[str]) -> None:
        while sent < MESSAGES or not turns:
            await call(place)

    async with open_place() as place:
        before = len(asyncio.all_tasks())
        async with talkative(place) as turns:
            await asyncio.gather(*(noisy(place, turns) for _ in range(AT_ONCE)))
        await nothing_is_left(place, before)
    wanted = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.OK}
    assert wanted <= set(statuses), statuses
    assert complaints(caplog) == []


@pytest.mark.parametrize("method", METHODS)
async def test_what_is_no_message_is_the_clients_mistake(open_place: Any, method: str) -> None:
    async with open_place() as place:
        made = place.channel.stream_stream(f"/{NAME}/{method}")(iter([b"\xff\xff"]), timeout=5)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in made:
                pass
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert ("code", "bad_request") in tuple(caught.value.trailing_metadata() or ())

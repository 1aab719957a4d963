"""A language model of known speed on loopback, for tests and measurements.

It speaks OpenAI's streamed ``/v1/chat/completions`` and counts what it is asked, so that a test
can see when a caller has really hung up.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

_POLL_SECONDS: Final = 0.01
_hung_up: Final = contextlib.suppress(asyncio.IncompleteReadError, ConnectionError)


@dataclass
class Exchange:
    """One request, and the connection that its answer is written to.

    Attributes:
        head: request line and headers.
        body: of the request.
        writer: raw connection.
    """

    head: str
    body: bytes
    writer: asyncio.StreamWriter

    @property
    def asked(self) -> dict[str, Any]:
        """The body as JSON."""
        return dict(json.loads(self.body))

    async def status(self, code: int, body: dict[str, Any] | str, *headers: str) -> None:
        """Answer without a stream."""
        data = (body if isinstance(body, str) else json.dumps(body)).encode()
        kind = "text/html" if isinstance(body, str) else "application/json"
        lines = [f"HTTP/1.1 {code} X", f"Content-Type: {kind}", f"Content-Length: {len(data)}"]
        self.writer.write("\r\n".join([*lines, *headers, "", ""]).encode() + data)
        await self.writer.drain()

    async def start(self, kind: str = "text/event-stream") -> None:
        """Begin a streamed answer."""
        head = f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: {kind}\r\n\r\n"
        self.writer.write(head.encode())
        await self.writer.drain()

    async def raw(self, data: bytes) -> None:
        """Send bytes of a streamed answer."""
        self.writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        await self.writer.drain()

    async def event(self, data: object) -> None:
        """Send one server-sent event; a string as it is, anything else as JSON."""
        text = data if isinstance(data, str) else json.dumps(data)
        await self.raw(f"data: {text}\n\n".encode())

    async def token(self, text: str | None, finish: str | None = None) -> None:
        """Send one piece of the answer, or its end."""
        choice = {"index": 0, "delta": {"content": text} if text else {}, "finish_reason": finish}
        await self.event(
            {"id": "x", "object": "chat.completion.chunk", "model": "m", "choices": [choice]}
        )

    async def end(self) -> None:
        """End a streamed answer."""
        self.writer.write(b"0\r\n\r\n")
        await self.writer.drain()


Answer = Callable[[Exchange], Awaitable[None]]


@dataclass
class LoopbackLlm:
    """The server.

    Attributes:
        reply: makes the answer out of the viewer's message.
        tokens_per_second: speed; 0 is as fast as can be.
        first_token: seconds before the first token.
        answer: replaces the whole behaviour, for faults.
        url: address up to and with ``/v1``.
        exchanges: what was asked.
        active: answers being written now.
        sent: tokens sent so far.
    """

    reply: Callable[[str], str] = lambda message: f"You asked: {message}"
    tokens_per_second: float = 20.0
    first_token: float = 0.0
    answer: Answer | None = None
    url: str = ""
    exchanges: list[Exchange] = field(default_factory=list)
    active: int = 0
    sent: int = 0

    def __post_init__(self) -> None:
        """Nobody is connected yet."""
        self._serving: set[asyncio.Task[None]] = set()

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _stop(self) -> None:
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), _hung_up:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                found = re.search(r"content-length:\s*(\d+)", head, re.IGNORECASE)
                body = await reader.readexactly(int(found.group(1)) if found else 0)
                exchange = Exchange(head, body, writer)
                self.exchanges.append(exchange)
                self.active += 1
                try:
                    await self._until_hung_up(reader, (self.answer or self.write)(exchange))
                finally:
                    self.active -= 1

    async def _until_hung_up(
        self, reader: asyncio.StreamReader, answering: Awaitable[None]
    ) -> None:
        """Write an answer, but stop when the caller closes the connection."""
        work = asyncio.ensure_future(answering)
        gone = asyncio.ensure_future(_closed(reader))
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise ConnectionResetError
            await work
        finally:
            for task in (work, gone):
                task.cancel()
            await asyncio.gather(work, gone, return_exceptions=True)

    async def write(self, exchange: Exchange) -> None:
        """The ordinary answer: word by word at the set speed, at most ``max_tokens`` words."""
        asked = exchange.asked
        words = re.findall(r"\s*\S+", self.reply(asked["messages"][-1]["content"]))
        limit = asked.get("max_tokens") or asked.get("max_completion_tokens") or len(words)
        await exchange.start()
        loop = asyncio.get_running_loop()
        due = loop.time() + self.first_token
        for word in words[:limit]:
            await asyncio.sleep(max(0.0, due - loop.time()))
            await exchange.token(word)
            self.sent += 1
            if self.tokens_per_second:
                due += 1 / self.tokens_per_second
        await exchange.token(None, "length" if len(words) > limit else "stop")
        await exchange.event("[DONE]")
        await exchange.end()


async def _closed(reader: asyncio.StreamReader) -> None:
    while not reader.at_eof():  # noqa: ASYNC110 -- a StreamReader has no event for its end
        await asyncio.sleep(_POLL_SECONDS)


@contextlib.asynccontextmanager
async def loopback_llm(**options: Any) -> AsyncIterator[LoopbackLlm]:
    """Run a server; the options are the attributes of ``LoopbackLlm``."""
    llm = LoopbackLlm(**options)
    server = await asyncio.start_server(llm._connected, "127.0.0.1", 0)
    llm.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield llm
    finally:
        server.close()
        await llm._stop()

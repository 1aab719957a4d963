"""A loopback server that speaks the model hub's protocol, and breaks off where it is told to."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

REVISION = "0123456789abcdef0123456789abcdef01234567"
BIG = bytes(range(256)) * 4096
SMALL = b'{"sample_size": 64}\n'


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def git_blob(data: bytes) -> str:
    return hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()


@dataclass
class Hub:
    """Scripted hub: resolve redirects large files to a store, as the real one does.

    cuts: how many bytes each answer for a large file sends before the connection breaks; when
    the list is empty answers are whole.
    """

    base: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    cuts: list[int] = field(default_factory=list)
    ranges: bool = True
    tags: bool = True
    statuses: list[int] = field(default_factory=list)
    seen: list[tuple[str, str | None]] = field(default_factory=list)


def make_handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            wanted = self.headers.get("range")
            hub.seen.append((self.path, wanted))
            if hub.statuses and (status := hub.statuses.pop(0)) != 200:
                self.answer(status, b"no", {})
                return
            stored = self.path.startswith("/store/")
            name = self.path.removeprefix("/store")
            data = hub.files.get(name)
            if data is None:
                self.answer(404, b"Entry not found", {})
            elif not stored and len(data) > 1000:
                tags = {"x-linked-etag": f'"{sha256(data)}"'} if hub.tags else {}
                self.answer(302, b"", {"location": f"/store{self.path}", **tags})
            else:
                tags = {} if stored or not hub.tags else {"etag": f'"{git_blob(data)}"'}
                self.send_data(data, wanted if hub.ranges else None, tags)

        def send_data(self, data: bytes, wanted: str | None, headers: dict[str, str]) -> None:
            status = 200
            total = len(data)
            if wanted:
                start = int(wanted.removeprefix("bytes=").removesuffix("-"))
                if start >= total:
                    self.answer(416, b"", {"content-range": f"bytes */{total}"})
                    return
                data = data[start:]
                status = 206
                headers = {**headers, "content-range": f"bytes {start}-{total - 1}/{total}"}
            self.answer(status, data, headers)

        def answer(self, status: int, data: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            if len(data) > 1000 and hub.cuts:
                self.wfile.write(data[: hub.cuts.pop(0)])
                self.wfile.flush()
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True
            else:
                self.wfile.write(data)

    return Handler


@contextmanager
def running_hub() -> Iterator[Hub]:
    """A hub that answers until the end of the block."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), make_handler(hub))
    hub.base = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

"""The downloader against a loopback server that speaks the hub's protocol."""

from __future__ import annotations

import fcntl
import hashlib
import io
import socket
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from typer.testing import CliRunner

from export import fetch
from export.download import Downloader, Target
from export.weights import PARTS, Part, WeightFile
from orchestrator.errors import CheckpointError, SetupError, UsageError

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


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), make_handler(hub))
    hub.base = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield hub
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def loader() -> Iterator[Downloader]:
    with httpx.Client(follow_redirects=True, timeout=5.0) as client:
        yield Downloader(client, pause=0.01)


def target(hub: Hub, tmp_path: Path, name: str = "unet.pth", **changes: object) -> Target:
    values: dict[str, object] = {
        "url": f"{hub.base}/org/repo/resolve/{REVISION}/{name}",
        "path": tmp_path / "musetalkV15" / name,
        "size": len(BIG),
        "sha256": sha256(BIG),
    }
    hub.files.setdefault(f"/org/repo/resolve/{REVISION}/unet.pth", BIG)
    hub.files.setdefault(f"/org/repo/resolve/{REVISION}/config.json", SMALL)
    return Target(**{**values, **changes})  # type: ignore[arg-type]


def test_follows_the_redirect_and_publishes(hub: Hub, tmp_path: Path, loader: Downloader) -> None:
    wanted = target(hub, tmp_path)
    reports: list[tuple[int, int | None]] = []
    loader.fetch(wanted, lambda done, total: reports.append((done, total)))
    assert wanted.path.read_bytes() == BIG
    assert not wanted.part.exists()
    assert reports[-1] == (len(BIG), len(BIG))
    assert wanted.complete()


def test_continues_a_transfer_that_breaks(hub: Hub, tmp_path: Path, loader: Downloader) -> None:
    hub.cuts = [300_000, 300_000]
    wanted = target(hub, tmp_path)
    loader.fetch(wanted)
    assert wanted.path.read_bytes() == BIG
    asked = [part for path, part in hub.seen if path.startswith("/store")]
    assert asked[0] is None
    assert all(part is not None and part != "bytes=0-" for part in asked[1:])
    assert len(asked) == 3


def test_continues_the_part_of_an_earlier_run(hub: Hub, tmp_path: Path, loader: Downloader) -> None:
    wanted = target(hub, tmp_path)
    wanted.part.parent.mkdir(parents=True)
    wanted.part.write_bytes(BIG[:500_000])
    assert wanted.missing() == len(BIG) - 500_000
    loader.fetch(wanted)
    assert wanted.path.read_bytes() == BIG
    assert {part for _, part in hub.seen} == {"bytes=500000-"}


def test_finishes_a_part_that_is_already_whole(
    hub: Hub, tmp_path: Path, loader: Downloader
) -> None:
    wanted = target(hub, tmp_path)
    wanted.part.parent.mkdir(parents=True)
    wanted.part.write_bytes(BIG)
    loader.fetch(wanted)
    assert wanted.path.read_bytes() == BIG


def test_starts_again_where_the_server_knows_no_ranges(
    hub: Hub, tmp_path: Path, loader: Downloader
) -> None:
    hub.ranges = False
    hub.cuts = [300_000]
    wanted = target(hub, tmp_path)
    loader.fetch(wanted)
    assert wanted.path.read_bytes() == BIG


def test_starts_again_when_the_part_is_too_long(
    hub: Hub, tmp_path: Path, loader: Downloader
) -> None:
    wanted = target(hub, tmp_path)
    wanted.part.parent.mkdir(parents=True)
    wanted.part.write_bytes(BIG + b"x")
    loader.fetch(wanted)
    assert wanted.path.read_bytes() == BIG


def test_gives_up_where_nothing_more_comes_and_keeps_the_part(
    hub: Hub, tmp_path: Path, loader: Downloader
) -> None:
    hub.cuts = [300_000] + [0] * 10
    wanted = target(hub, tmp_path)
    with pytest.raises(SetupError, match="run it again to continue"):
        loader.fetch(wanted)
    assert not wanted.path.exists()
    assert 0 < wanted.part.stat().st_size <= 300_000
    hub.cuts = []
    loader.fetch(wanted)
    assert wanted.path.read_bytes() == BIG


def test_a_wrong_checksum_publishes_nothing(hub: Hub, tmp_path: Path, loader: Downloader) -> None:
    wanted = target(hub, tmp_path)
    key = f"/org/repo/resolve/{REVISION}/unet.pth"
    hub.files[key] = BIG[:-1] + b"\0"
    with pytest.raises(CheckpointError, match="checksum"):
        loader.fetch(wanted)
    assert not wanted.path.exists()
    assert not wanted.part.exists()


def test_another_size_is_refused_before_the_download(
    hub: Hub, tmp_path: Path, loader: Downloader
) -> None:
    wanted = target(hub, tmp_path, size=len(BIG) + 1)
    reports: list[int] = []
    with pytest.raises(CheckpointError, match="the official file has"):
        loader.fetch(wanted, lambda done, _total: reports.append(done))
    assert not reports


@pytest.mark.parametrize(("name", "data"), [("config.json", SMALL), ("unet.pth", BIG)])
def test_without_a_pinned_sum_the_hubs_tag_is_the_check(
    hub: Hub, tmp_path: Path, loader: Downloader, name: str, data: bytes
) -> None:
    wanted = target(hub, tmp_path, name, size=None, sha256=None)
    loader.fetch(wanted)
    assert wanted.path.read_bytes() == data


def test_without_any_sum_it_refuses(hub: Hub, tmp_path: Path, loader: Downloader) -> None:
    hub.tags = False
    wanted = target(hub, tmp_path, "config.json", size=None, sha256=None)
    with pytest.raises(CheckpointError, match="cannot be verified"):
        loader.fetch(wanted)
    assert not wanted.path.exists()


def test_a_missing_file_is_named(hub: Hub, tmp_path: Path, loader: Downloader) -> None:
    wanted = target(hub, tmp_path, "gone.pth")
    with pytest.raises(SetupError, match=r"gone\.pth: the server answered 404"):
        loader.fetch(wanted)
    assert len(hub.seen) == 1


def test_a_busy_server_is_asked_again(hub: Hub, tmp_path: Path, loader: Downloader) -> None:
    hub.statuses = [503, 429]
    wanted = target(hub, tmp_path)
    loader.fetch(wanted)
    assert wanted.path.read_bytes() == BIG


def test_no_network_is_said_at_once(tmp_path: Path, loader: Downloader) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nobody = Target(
            f"http://127.0.0.1:{closed.getsockname()[1]}/x", tmp_path / "x", 1, sha256(b"x")
        )
        with pytest.raises(SetupError, match="check the network"):
            loader.fetch(nobody)


def test_two_runs_do_not_mix(hub: Hub, tmp_path: Path, loader: Downloader) -> None:
    wanted = target(hub, tmp_path)
    wanted.part.parent.mkdir(parents=True)
    with wanted.part.open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(SetupError, match="another process"):
            loader.fetch(wanted)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(min_value=1, max_value=len(BIG) - 1), max_size=3))
def test_any_cuts_end_in_the_same_bytes(cuts: list[int]) -> None:
    hub = Hub()
    hub.cuts = list(cuts)
    server = ThreadingHTTPServer(("127.0.0.1", 0), make_handler(hub))
    hub.base = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        with (
            tempfile.TemporaryDirectory() as folder,
            httpx.Client(follow_redirects=True, timeout=5.0) as client,
        ):
            wanted = target(hub, Path(folder))
            Downloader(client, pause=0.0).fetch(wanted)
            assert wanted.path.read_bytes() == BIG
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


# The command


@pytest.fixture
def parts(hub: Hub) -> tuple[Part, ...]:
    hub.files[f"/org/repo/resolve/{REVISION}/musetalkV15/unet.pth"] = BIG
    hub.files[f"/org/small/resolve/{REVISION}/config.json"] = SMALL
    unet = WeightFile("musetalkV15/unet.pth", "musetalkV15/unet.pth", len(BIG), sha256(BIG))
    return (
        Part("musetalk", "UNet", "org/repo", REVISION, "OpenRAIL", "Do no harm.", (unet,)),
        Part(
            "taesd",
            "fast decoder",
            "org/small",
            REVISION,
            "MIT",
            "",
            (WeightFile("config.json", "taesd/config.json", None, None),),
        ),
    )


def console() -> tuple[Console, io.StringIO]:
    text = io.StringIO()
    return Console(file=text, width=200), text


def test_fetches_what_is_needed_and_then_nothing(
    hub: Hub, tmp_path: Path, parts: tuple[Part, ...]
) -> None:
    out, text = console()
    fetch.run(tmp_path / "ckpt", accept=True, endpoint=hub.base, parts=parts, console=out)
    files = {
        str(p.relative_to(tmp_path / "ckpt")) for p in (tmp_path / "ckpt").rglob("*") if p.is_file()
    }
    assert files == {"LICENCES.txt", "musetalkV15/unet.pth", "taesd/config.json"}
    assert "Do no harm." in (tmp_path / "ckpt" / "LICENCES.txt").read_text()
    assert text.getvalue().index("Do no harm.") < text.getvalue().index("downloading")
    asked = len(hub.seen)
    out, text = console()
    fetch.run(tmp_path / "ckpt", accept=True, endpoint=hub.base, parts=parts, console=out)
    assert len(hub.seen) == asked
    assert text.getvalue().count("already there") == 2
    assert (tmp_path / "ckpt" / "LICENCES.txt").read_text().count("Do no harm.") == 1


def test_only_some_parts(hub: Hub, tmp_path: Path, parts: tuple[Part, ...]) -> None:
    fetch.run(tmp_path, only=["taesd"], accept=True, endpoint=hub.base, parts=parts)
    assert (tmp_path / "taesd" / "config.json").read_bytes() == SMALL
    assert not (tmp_path / "musetalkV15").exists()
    with pytest.raises(UsageError, match="there is no part teeth"):
        fetch.run(tmp_path, only=["teeth"], accept=True, endpoint=hub.base, parts=parts)


def test_without_consent_nothing_is_asked_for(
    hub: Hub, tmp_path: Path, parts: tuple[Part, ...]
) -> None:
    out, text = console()
    with pytest.raises(UsageError, match="--accept-licences"):
        fetch.run(tmp_path / "ckpt", endpoint=hub.base, parts=parts, console=out)
    assert "Do no harm." in text.getvalue()
    assert not hub.seen
    assert not (tmp_path / "ckpt").exists()


def test_a_file_that_is_in_the_way_is_kept(
    hub: Hub, tmp_path: Path, parts: tuple[Part, ...]
) -> None:
    mine = tmp_path / "musetalkV15" / "unet.pth"
    mine.parent.mkdir()
    mine.write_bytes(b"my own")
    with pytest.raises(SetupError, match="not the official file"):
        fetch.run(tmp_path, accept=True, endpoint=hub.base, parts=parts)
    assert mine.read_bytes() == b"my own"


def test_no_room_is_said_before_the_download(
    hub: Hub, tmp_path: Path, parts: tuple[Part, ...]
) -> None:
    huge = WeightFile("a", "a", 1 << 60, sha256(b""))
    part = Part("a", "test", "org/a", REVISION, "MIT", "", (huge,))
    with pytest.raises(SetupError, match="GB free, the download needs"):
        fetch.run(tmp_path, accept=True, endpoint=hub.base, parts=[part])
    assert not hub.seen


@pytest.mark.parametrize("endpoint", ["ftp://x", "huggingface.co", "http://"])
def test_a_bad_address_is_refused(tmp_path: Path, endpoint: str) -> None:
    with pytest.raises(UsageError, match="give one such as"):
        fetch.run(tmp_path, accept=True, endpoint=endpoint)


def test_the_command_line_passes_everything_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from export.cli import app

    calls: list[tuple[object, dict[str, object]]] = []
    monkeypatch.setattr(fetch, "run", lambda directory, **rest: calls.append((directory, rest)))
    result = CliRunner().invoke(
        app,
        ["fetch", str(tmp_path), "--only", "taesd", "--accept-licences", "--endpoint", "http://m"],
    )
    assert result.exit_code == 0, result.output
    assert calls == [(tmp_path, {"only": ["taesd"], "accept": True, "endpoint": "http://m"})]


def test_every_official_file_is_pinned() -> None:
    for part in PARTS:
        assert len(part.revision) == 40
        assert int(part.revision, 16)
        for file in part.files:
            assert (file.size is None) == (file.sha256 is None)
            if file.sha256 is None:
                assert file.path.endswith(".json")
            else:
                assert len(file.sha256) == 64
                assert int(file.sha256, 16)
    assert len({file.path for part in PARTS for file in part.files}) == 10

"""One file over HTTP: resumed where it stopped, checked, then published by one rename."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import IO, Final

import httpx

from orchestrator.errors import CheckpointError, MuseTalkError, SetupError

Progress = Callable[[int, "int | None"], None]
"""Called with the bytes that are there and the bytes there will be (None: not known yet)."""

_PIECE: Final = 1 << 20
_ATTEMPTS: Final = 4
_SHA256_HEX: Final = 64
_GIT_BLOB_HEX: Final = 40


@dataclass(frozen=True)
class Target:
    """One file to fetch.

    Attributes:
        url: at a pinned revision.
        path: where it goes.
        size: bytes it has, None if not known.
        sha256: what it hashes to; None takes the server's ETag as the sum.
    """

    url: str
    path: Path
    size: int | None
    sha256: str | None

    @property
    def part(self) -> Path:
        """What has come so far."""
        return self.path.with_name(self.path.name + ".part")

    def complete(self) -> bool:
        """Whether the right file is there already.

        Without a sum of our own, a file that was published is right: it was checked then.

        Raises:
            SetupError: another file is in its place.
        """
        if not self.path.exists():
            return False
        same_size = self.size is None or self.path.stat().st_size == self.size
        if same_size and (self.sha256 is None or _sha256(self.path) == self.sha256):
            return True
        raise SetupError(
            f"{self.path} is there but is not the official file",
            remedy="move it away, or choose another folder",
        )

    def missing(self) -> int:
        """Bytes still to come, 0 where the size is not known."""
        there = self.part.stat().st_size if self.part.exists() else 0
        return max((self.size or 0) - there, 0)


class Downloader:
    """Fetches files one by one.

    Args:
        client: follows redirects; its time-outs end a transfer that has stopped.
        pause: seconds before the second attempt; doubled for each further one.
    """

    def __init__(self, client: httpx.Client, pause: float = 1.0) -> None:
        self._client = client
        self._pause = pause

    def fetch(self, target: Target, progress: Progress = lambda _done, _total: None) -> None:
        """Bring one file; a transfer that breaks off is continued while it makes progress.

        Raises:
            SetupError: no network, no such file there, no room, or another process fetches it.
            CheckpointError: what came is not the official file; it was deleted.
        """
        with _exclusive(target) as file:
            failures = 0
            reached = False
            while True:
                before = file.seek(0, os.SEEK_END)
                try:
                    tag = self._transfer(target, file, progress)
                    break
                except httpx.TransportError as error:
                    reached = reached or not _unreachable(error)
                    failures = 1 if file.seek(0, os.SEEK_END) > before else failures + 1
                    if failures >= _ATTEMPTS or not reached:
                        raise _no_network(target, error) from error
                    time.sleep(self._pause * 2 ** (failures - 1))
                except OSError as error:
                    raise SetupError(
                        f"{target.part} cannot be written: {error.strerror}",
                        remedy="free some space; the download continues where it stopped",
                    ) from error
            file.flush()
            os.fsync(file.fileno())
            self._check(target, tag)
            target.part.replace(target.path)

    def _transfer(self, target: Target, file: IO[bytes], progress: Progress) -> str:
        """One request; appends to the file and returns the hub's ETag of its content."""
        start = file.seek(0, os.SEEK_END)
        if target.size is not None and start > target.size:
            file.truncate(0)
            start = 0
        headers = {"range": f"bytes={start}-"} if start else {}
        with self._client.stream("GET", target.url, headers=headers) as response:
            tag = _content_tag(response)
            if response.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and start:
                if target.size is not None and start == target.size:
                    return tag
                file.truncate(0)
                raise httpx.RemoteProtocolError("the server has less than is here already")
            _require_success(target, response)
            if response.status_code != HTTPStatus.PARTIAL_CONTENT:
                file.truncate(0)
                start = file.seek(0)
            total = _total(response, start)
            if target.size is not None and total is not None and total != target.size:
                file.truncate(0)
                raise CheckpointError(
                    f"{target.url} has {total} bytes, the official file has {target.size}",
                    remedy="use another mirror (--endpoint)",
                )
            done = start
            for piece in response.iter_raw():
                file.write(piece)
                done += len(piece)
                progress(done, total or target.size)
        expected = target.size if target.size is not None else total
        if expected is not None and done != expected:
            raise httpx.RemoteProtocolError(f"{done} of {expected} bytes came")
        return tag

    def _check(self, target: Target, tag: str) -> None:
        """Compare what came with the pinned sum, or with the hub's own."""
        if target.sha256 is not None:
            expected, found = target.sha256, _sha256(target.part)
        elif len(tag) == _SHA256_HEX:
            expected, found = tag, _sha256(target.part)
        elif len(tag) == _GIT_BLOB_HEX:
            expected, found = tag, _git_blob(target.part)
        else:
            raise CheckpointError(
                f"{target.url} names no checksum, so that {target.path.name} cannot be verified",
                remedy="use the official hub or a mirror that keeps its ETag headers",
            )
        if found != expected:
            target.part.unlink()
            raise CheckpointError(
                f"{target.path.name} from {target.url} has the checksum {found}, not {expected}; "
                "it was deleted",
                remedy="run it again; if it stays so, use another mirror (--endpoint)",
            )


@contextlib.contextmanager
def _exclusive(target: Target) -> Iterator[IO[bytes]]:
    """The partial file, opened and locked.

    Raises:
        SetupError: it cannot be written, or another process does.
    """
    try:
        target.path.parent.mkdir(parents=True, exist_ok=True)
        file = target.part.open("ab")
    except OSError as error:
        raise SetupError(
            f"{target.part} cannot be written: {error.strerror}", remedy="choose another folder"
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise SetupError(
                f"{target.part} is being written by another process",
                remedy="wait for it, or stop it",
            ) from error
        yield file


def _content_tag(response: httpx.Response) -> str:
    """The ETag of the content: the hub states it on its first answer, before it redirects."""
    first = response.history[0] if response.history else response
    for name in ("x-linked-etag", "etag"):
        if name in first.headers:
            return str(first.headers[name]).removeprefix("W/").strip('"').lower()
    return ""


def _require_success(target: Target, response: httpx.Response) -> None:
    status = response.status_code
    if status in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
        return
    if status in (HTTPStatus.TOO_MANY_REQUESTS,) or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        raise httpx.RemoteProtocolError(f"the server answered {status}")
    raise SetupError(
        f"{target.url}: the server answered {status} {response.reason_phrase}",
        remedy="use another mirror (--endpoint), or fetch the other parts with --only",
    )


def _total(response: httpx.Response, start: int) -> int | None:
    """Size of the whole file, if the answer tells."""
    content_range = response.headers.get("content-range", "")
    if response.status_code == HTTPStatus.PARTIAL_CONTENT and "/" in content_range:
        span, total = content_range.removeprefix("bytes ").split("/", 1)
        if int(span.split("-")[0]) != start:
            raise httpx.RemoteProtocolError("the server sent another range than was asked for")
        return int(total) if total.isdigit() else None
    length = response.headers.get("content-length")
    return start + int(length) if length is not None else None


def _unreachable(error: httpx.TransportError) -> bool:
    """Whether nobody answered at all: at the start, trying again brings nothing but waiting."""
    return isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)


def _no_network(target: Target, error: httpx.TransportError) -> MuseTalkError:
    host = httpx.URL(target.url).host
    reason = str(error) or type(error).__name__
    return SetupError(
        f"{target.path.name} could not be fetched from {host}: {reason}",
        remedy="check the network or HTTPS_PROXY, name a mirror with --endpoint or "
        "MUSETALK_HF_ENDPOINT, or copy the files there by hand; run it again to continue",
    )


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


def _git_blob(path: Path) -> str:
    digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()

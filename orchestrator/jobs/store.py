"""Files of the video jobs: in a folder, or in an S3-compatible store."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, S3Store

from orchestrator.errors import MuseTalkError, NotFoundError, SetupError

if TYPE_CHECKING:
    from obstore.store import ObjectStore, RetryConfig

_PIECE: Final = 256 * 1024
_MANY: Final = 500
_RETRIES: Final[RetryConfig] = {"max_retries": 3, "retry_timeout": timedelta(seconds=20)}
_CHECK: Final = "check"


@dataclass(frozen=True)
class Stored:
    """A file in the store.

    Attributes:
        path: its name.
        modified: when it was written, seconds since the epoch.
        size: in bytes.
    """

    path: str
    modified: float
    size: int


class FileStore:
    """Files by name. What is put appears whole or not at all.

    Args:
        store: of obstore.
        name: for messages, without secrets.
        folder: where it is, when it is a folder of this machine.
    """

    def __init__(self, store: ObjectStore, name: str, folder: Path | None) -> None:
        self._store = store
        self._folder = folder
        self.name = name

    async def check(self) -> None:
        """Write and delete a small file.

        Raises:
            SetupError: that is not possible.
        """
        try:
            await obstore.put_async(self._store, _CHECK, b"ok")
            await obstore.delete_async(self._store, _CHECK)
        except (BaseError, OSError) as error:
            raise SetupError(
                f"results cannot be stored in {self.name}: {_reason(error)}",
                remedy="check MUSETALK_VIDEO_STORE, and for S3 the AWS_... variables",
            ) from error

    async def put(self, path: str, content: bytes | Path) -> None:
        """Store bytes, or a file of this machine, under a name.

        Raises:
            SetupError: the store does not take it.
        """
        try:
            await obstore.put_async(self._store, path, content)
        except (BaseError, OSError) as error:
            raise self._failure(error) from error

    async def read(self, path: str, start: int = 0, end: int | None = None) -> bytes:
        """Bytes of a file, all or from ``start`` to before ``end``.

        Raises:
            NotFoundError: there is no such file.
            SetupError: the store does not answer.
        """
        try:
            if end is not None:
                part = await obstore.get_range_async(self._store, path, start=start, end=end)
                return part.to_bytes()
            whole = await obstore.get_async(self._store, path)
            return (await whole.bytes_async()).to_bytes()[start:]
        except FileNotFoundError as error:
            raise _gone(path) from error
        except (BaseError, OSError) as error:
            raise self._failure(error) from error

    async def stream(self, path: str, start: int, end: int) -> AsyncIterator[bytes]:
        """A part of a file in pieces; it can be deleted meanwhile.

        Args:
            path: name of the file.
            start: first byte.
            end: after the last byte.

        Returns:
            The pieces, from an answer of the store that has begun.

        Raises:
            NotFoundError: there is no such file.
            SetupError: the store does not answer.
        """
        try:
            part = await obstore.get_async(self._store, path, options={"range": (start, end)})
        except FileNotFoundError as error:
            raise _gone(path) from error
        except (BaseError, OSError) as error:
            raise self._failure(error) from error

        async def pieces() -> AsyncIterator[bytes]:
            async for piece in part.stream(min_chunk_size=_PIECE):
                yield bytes(piece)

        return pieces()

    async def fetch(self, path: str, target: Path) -> None:
        """Copy a file to this machine.

        Raises:
            NotFoundError: there is no such file.
            SetupError: the store does not answer.
        """
        try:
            answer = await obstore.get_async(self._store, path)
            with await asyncio.to_thread(target.open, "wb") as file:
                async for piece in answer.stream(min_chunk_size=_PIECE):
                    await asyncio.to_thread(file.write, piece)
        except FileNotFoundError as error:
            raise _gone(path) from error
        except (BaseError, OSError) as error:
            raise self._failure(error) from error

    async def size(self, path: str) -> int | None:
        """Bytes of a file; None when there is none of that name.

        Raises:
            SetupError: the store does not answer.
        """
        try:
            return (await obstore.head_async(self._store, path))["size"]
        except FileNotFoundError:
            return None
        except (BaseError, OSError) as error:
            raise self._failure(error) from error

    async def files(self, prefix: str | None = None) -> list[Stored]:
        """The files whose name starts with the folder ``prefix``.

        Raises:
            SetupError: the store does not answer.
        """
        try:
            return [
                Stored(entry["path"], entry["last_modified"].timestamp(), entry["size"])
                async for batch in obstore.list(self._store, prefix, chunk_size=_MANY)
                for entry in batch
            ]
        except FileNotFoundError:
            return []
        except (BaseError, OSError) as error:
            raise self._failure(error) from error

    async def delete(self, paths: list[str]) -> None:
        """Delete files; those that are gone already are no error.

        Raises:
            SetupError: the store does not answer.
        """
        for path in paths:
            try:
                await obstore.delete_async(self._store, path)
            except FileNotFoundError:
                continue
            except (BaseError, OSError) as error:
                raise self._failure(error) from error

    async def remove_fragments(self, age: float) -> None:
        """Remove what a killed process left half written in a folder, if it is old enough.

        An S3 store keeps half an upload out of sight, and ends it by a life-cycle rule.
        """
        if self._folder is not None:
            await asyncio.to_thread(_remove_fragments, self._folder, time.time() - age)

    def _failure(self, error: Exception) -> MuseTalkError:
        return SetupError(
            f"the store {self.name} failed: {_reason(error)}",
            remedy="is its disk full, or its server away?",
        )


def open_store(address: str) -> FileStore:
    """Open a store.

    Args:
        address: a folder, or ``s3://BUCKET/PREFIX``; keys, region and endpoint of S3 come from
            the usual ``AWS_...`` variables. Nothing else may lie there.

    Raises:
        SetupError: it cannot be used.
    """
    try:
        if not address.startswith("s3://"):
            folder = Path(address).absolute()
            store = LocalStore(folder, mkdir=True, automatic_cleanup=True)
            return FileStore(store, str(folder), folder)
        return FileStore(S3Store.from_url(address, retry_config=_RETRIES), address, None)
    except (BaseError, OSError, ValueError) as error:
        raise SetupError(
            f"the store {address} cannot be used: {_reason(error)}",
            remedy="name a folder, or s3://BUCKET/PREFIX, in MUSETALK_VIDEO_STORE",
        ) from error


def _gone(path: str) -> NotFoundError:
    return NotFoundError(f"the file {path} is gone", remedy="make the video again")


def _reason(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:200] or type(error).__name__


def _remove_fragments(folder: Path, before: float) -> None:
    for path in folder.rglob("*#*"):
        try:
            if path.is_file() and path.stat().st_mtime < before:
                path.unlink()
        except FileNotFoundError:
            continue

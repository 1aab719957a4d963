"""Scratch space of one embedded server: a folder and the names of its shared memory.

The keeper removes both. Should it be killed as well, the next start finds them: a lock that
nobody holds any more marks what is left over, in whatever process namespace its owner lived.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import SetupError

PREFIX = "musetalk-triton-"
SHARED_MEMORY = Path("/dev/shm")
_LOCK = "lock"


@dataclass
class Scratch:
    """A folder with a lock that is held as long as one process has ``lock_fd`` open."""

    folder: Path
    lock_fd: int

    @property
    def name(self) -> str:
        """Unique word, also the prefix of all shared memory regions."""
        return self.folder.name

    def release(self) -> None:
        """Close this process's end of the lock; a process that inherited it keeps it."""
        if self.lock_fd >= 0:
            os.close(self.lock_fd)
            self.lock_fd = -1

    def remove(self) -> None:
        """Delete the folder and the shared memory."""
        self.release()
        remove(self.folder)


def create_scratch() -> Scratch:
    """Make a new scratch folder, after removing those of servers that are gone.

    Raises:
        SetupError: the temporary folder cannot be written to.
    """
    sweep()
    try:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        lock_fd = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise cannot_write(error) from error
    fcntl.flock(lock_fd, fcntl.LOCK_EX)
    return Scratch(folder, lock_fd)


def cannot_write(error: OSError) -> SetupError:
    """What to say when the temporary folder is full or read-only."""
    return SetupError(
        f"cannot write to the temporary folder {tempfile.gettempdir()}: {error.strerror}",
        remedy="free some space or set TMPDIR",
    )


def sweep() -> None:
    """Remove folders and shared memory whose owner was killed before it could."""
    for folder in Path(tempfile.gettempdir()).glob(PREFIX + "*"):
        with contextlib.suppress(OSError):
            descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove(folder)
            finally:
                os.close(descriptor)


def remove(folder: Path) -> None:
    """Delete a scratch folder and the shared memory named after it."""
    for region in SHARED_MEMORY.glob(folder.name + "*"):
        with contextlib.suppress(OSError):
            region.unlink()
    shutil.rmtree(folder, ignore_errors=True)

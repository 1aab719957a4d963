"""Write a folder completely or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError

from orchestrator.errors import SetupError

_FULL = 16 << 20
"""Bytes; with less than this left, a write that failed without a reason failed for space."""


def _permissions() -> int:
    """Mode of an ordinary new folder; temporary ones are private."""
    mask = os.umask(0)
    os.umask(mask)
    return 0o777 & ~mask


def _publish(work: Path, target: Path) -> None:
    """Put the finished folder in place of an older one, which comes back if that fails."""
    work.chmod(_permissions())
    if not target.exists():
        work.rename(target)
        return
    attic = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.{os.getpid()}-", dir=target.parent))
    try:
        target.rename(attic / target.name)
        try:
            work.rename(target)
        except BaseException:
            (attic / target.name).rename(target)
            raise
    finally:
        shutil.rmtree(attic, ignore_errors=True)


def _explain(error: Exception, parent: Path) -> SetupError | None:
    """The one line for an operator, None for an error that is no matter of the disk."""
    code = error.errno if isinstance(error, OSError) else None
    # torch and safetensors hide the reason of a write that failed.
    hidden = code is None and parent.is_dir() and shutil.disk_usage(parent).free < _FULL
    if hidden or code in (errno.ENOSPC, errno.EDQUOT):
        return SetupError(f"no space left on the disk of {parent}", remedy="free some")
    if isinstance(error, OSError) and error.filename is not None:
        return SetupError(f"{error.filename}: {error.strerror}", remedy="name another folder")
    return None


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _remove_abandoned(target: Path) -> None:
    """Folders of builds of this target whose process was killed before it could tidy up."""
    for left in target.parent.glob(f".{target.name}.*"):
        pid = left.name.removeprefix(f".{target.name}.").removeprefix("old.").partition("-")[0]
        if left.is_dir() and pid.isdigit() and not _alive(int(pid)):
            kept = left / target.name
            if kept.is_dir() and not target.exists():
                kept.rename(target)  # killed between the two renames of publishing
            shutil.rmtree(left, ignore_errors=True)


@contextlib.contextmanager
def staged(target: Path) -> Iterator[Path]:
    """A new folder beside ``target`` that replaces it when the block ends well.

    After a failure, Ctrl-C included, nothing is left behind and an older ``target`` is as it
    was. The folder lies beside the target so that publishing is a rename on one disk. What a
    killed process left there is removed first.

    Args:
        target: folder to write; its parents are made.

    Raises:
        SetupError: the disk is full, or the folder cannot be written.
    """
    parent = target.parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(target)
        work = Path(tempfile.mkdtemp(prefix=f".{target.name}.{os.getpid()}-", dir=parent))
        try:
            yield work
            _publish(work, target)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    except (OSError, RuntimeError, SafetensorError) as error:
        explained = _explain(error, parent)
        if explained is None:
            raise
        raise explained from error

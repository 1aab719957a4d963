"""What a server consists of while it runs, and whether anything of it is left."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from orchestrator.inference.scratch import PREFIX


def family(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def regions(folder: Path) -> list[str]:
    """Shared memory of the servers whose scratch folders lie here."""
    names = [path.name for path in folder.iterdir() if path.name.startswith(PREFIX)]
    assert names, "no server has its scratch folder here"
    return [
        region.name for region in Path("/dev/shm").iterdir() if region.name.startswith(tuple(names))
    ]


def is_empty(folder: Path) -> bool:
    return not any(folder.iterdir())


def none_left(names: list[str]) -> bool:
    return bool(names) and not any((Path("/dev/shm") / name).exists() for name in names)


def all_gone(processes: list[psutil.Process], seconds: float = 15) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    return not alive


def is_free(address: str) -> bool:
    host, port = address.split(":")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
        except OSError:
            return False
    return True


async def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.05)


def tritonservers(marker: Path) -> list[int]:
    """Servers whose repository lies under a folder."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            command = process.cmdline()
            if command and command[0].endswith("tritonserver") and str(marker) in " ".join(command):
                found.append(process.pid)
    return found

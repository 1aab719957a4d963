"""``musetalk triton`` as a process of its own, ended in every way."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.inference.processes import all_gone, family, is_empty, is_free, none_left, regions

pytestmark = [pytest.mark.triton, pytest.mark.usefixtures("own_temporary_folder")]

Make = Callable[[], Path]


PROGRAM = """
import sys
from pathlib import Path
from orchestrator.inference import run_triton
sys.exit(run_triton(Path(sys.argv[1]), 0, 0, 0))
"""


@contextlib.contextmanager
def command(repository: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """``musetalk triton`` in a process of its own, ready; with its first line."""
    root = Path(__file__).resolve().parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(repository)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=root,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        yield process, process.stdout.readline()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_prints_its_addresses_and_stops_on_a_signal(
    one_model: Make, own_temporary_folder: Path, number: int
) -> None:
    with command(one_model()) as (process, line):
        addresses = re.findall(r"127\.0\.0\.1:\d+", line)
        assert len(addresses) == 3, line
        processes = family(process.pid)
        shared = regions(own_temporary_folder)
        # As a terminal does: to the whole process group.
        os.killpg(process.pid, number)
        assert process.wait(20) == 0
        assert all_gone(processes, 1)
    assert none_left(shared)
    assert is_empty(own_temporary_folder)
    assert all(is_free(address) for address in addresses)


def test_killing_the_command_ends_the_server_too(
    one_model: Make, own_temporary_folder: Path
) -> None:
    with command(one_model()) as (process, _):
        processes = family(process.pid)
        assert len(processes) >= 4  # command, keeper, server, stub
        shared = regions(own_temporary_folder)
        process.kill()
        process.wait()
        assert all_gone(processes)
    assert none_left(shared)
    assert is_empty(own_temporary_folder)


def test_killing_the_keeper_ends_the_server_too(
    one_model: Make, own_temporary_folder: Path
) -> None:
    with command(one_model()) as (process, _):
        processes = family(process.pid)
        shared = regions(own_temporary_folder)
        keeper = next(p for p in processes if any("keeper.py" in word for word in p.cmdline()))
        keeper.kill()
        assert process.wait(20) == 1
        assert all_gone(processes)
    assert none_left(shared)
    assert is_empty(own_temporary_folder)

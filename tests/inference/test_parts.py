"""The small parts around the server: its log, its files, its scratch space, its ports."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import importlib.util
import logging
import os
import socket
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.errors import ServerDiedError, SetupError
from orchestrator.inference import EmbeddedTriton, connection, distribution, scratch
from orchestrator.inference.ports import Ports
from orchestrator.inference.triton_log import LogLine, LogReader

HEAD = "1123 02:40:09.247000 1234 model_lifecycle.cc:642] "


@pytest.mark.parametrize(
    ("raw", "level", "text"),
    [
        ("I" + HEAD + '"loading: a:1"', logging.INFO, "loading: a:1"),
        ("E" + HEAD + "it broke", logging.ERROR, "it broke"),
        ("W" + HEAD + '"say \\"so\\""', logging.WARNING, 'say "so"'),
        ("error: creating server", logging.INFO, "error: creating server"),
    ],
)
def test_a_line_has_a_level_and_a_message(raw: str, level: int, text: str) -> None:
    line = LogReader().read(raw)
    assert line is not None
    assert (line.level, line.text) == (level, text)


def test_lines_without_a_head_continue_the_one_before() -> None:
    reader = LogReader()
    reader.read("E" + HEAD + "Traceback")
    line = reader.read("  in some file")
    assert line is not None
    assert line.level == logging.ERROR
    assert reader.read("   ") is None


def test_the_first_model_that_fails_is_the_reason() -> None:
    reader = LogReader()
    assert reader.reason() == ""
    reader.read(
        "E" + HEAD + "failed to load 'unet' version 1: Internal: "
        "TritonModelException: model file /m/unet is missing\\n\\nAt:\\n  model.py(20)"
    )
    reader.read("E" + HEAD + "failed to load 'vae' version 1: Internal: other")
    reader.read("error: creating server: Internal - failed to load all models")
    assert reader.reason() == "model unet cannot be loaded: model file /m/unet is missing"


def test_without_a_failed_model_the_last_error_is_the_reason() -> None:
    reader = LogReader()
    reader.read("E" + HEAD + "CudaDriverHelper has not been initialized.")
    reader.read("I" + HEAD + "starting")
    assert reader.reason() == "starting"
    reader.read("E" + HEAD + "Socket '127.0.0.1:8001' already in use")
    reader.read("I" + HEAD + "bye")
    assert reader.reason() == "Socket '127.0.0.1:8001' already in use"


def test_a_model_that_is_ready_is_heard_of() -> None:
    reader = LogReader()
    reader.read("I" + HEAD + "\"successfully loaded 'vae'\"")
    reader.read("I" + HEAD + "vae computes in fp32, warm for batches of 1")  # may come after it
    assert reader.unheard(0) is None
    reader.read("I" + HEAD + "unet computes in fp32, warm for batches of 1")
    assert reader.unheard(0) == "unet" and reader.unheard(60) is None
    reader.read("I" + HEAD + "\"successfully loaded 'unet'\"")
    assert reader.unheard(0) is None


def test_scratch_of_a_dead_owner_is_swept_and_a_living_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    memory = tmp_path / "shm"
    memory.mkdir()
    monkeypatch.setattr(scratch, "SHARED_MEMORY", memory)
    living = scratch.create_scratch()
    dead = scratch.create_scratch()
    for owner in (living, dead):
        (memory / f"{owner.name}1234").write_bytes(b"x")
    (memory / "somebody-else").write_bytes(b"x")
    os.close(dead.lock_fd)  # as the kernel does for a killed process
    scratch.sweep()
    assert living.folder.is_dir()
    assert not dead.folder.exists()
    assert {path.name for path in memory.iterdir()} == {f"{living.name}1234", "somebody-else"}
    living.remove()
    assert not living.folder.exists()


def test_a_temporary_folder_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(SetupError, match="cannot write to the temporary folder"):
        scratch.create_scratch()


async def test_a_full_disk_is_said_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_model: Callable[[], Path]
) -> None:
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(distribution.shutil, "copy2", full)
    with pytest.raises(SetupError, match="No space left on device"):
        await EmbeddedTriton(one_model()).start()
    assert not any(path.exists() for path in folder.glob("*"))


async def test_a_server_that_the_machine_has_no_room_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_model: Callable[[], Path]
) -> None:
    """The supervisor counts it as a death; anything but our own errors would end the watch."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))

    async def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    monkeypatch.setattr(asyncio, "create_subprocess_exec", refuse)
    with pytest.raises(ServerDiedError, match="cannot be started: Cannot allocate memory"):
        await EmbeddedTriton(one_model()).start()
    assert not any(folder.iterdir())


def test_a_log_that_nobody_reads_any_more_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error would end the reading of the server's log, whose full pipe then stops the server."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as closed, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", closed)
        connection._to_stderr(LogLine(logging.INFO, "loaded"))
        with contextlib.suppress(BrokenPipeError):
            closed.close()


def test_free_ports_differ_and_taken_ones_are_refused() -> None:
    ports = Ports(0, 0, 0).resolve()
    assert len({ports.grpc, ports.http, ports.metrics, 0}) == 4
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SetupError, match=f"HTTP port {port}"):
            Ports(0, port, 0).resolve()
    with pytest.raises(SetupError, match="metrics port"):
        Ports(ports.grpc, ports.http, ports.http).resolve()


def test_the_wheel_holds_what_the_server_needs() -> None:
    found = distribution.find_distribution()
    assert os.access(found.binary, os.X_OK)
    environment = found.environment()
    assert environment["PATH"].split(":")[0] == str(Path(sys.executable).parent)
    assert environment["LD_LIBRARY_PATH"].split(":")[0] == str(found.libraries)


def test_without_the_wheel_the_remedy_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(SetupError, match="pip install"):
        distribution.find_distribution()


def test_without_libpython_the_remedy_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distribution.sysconfig, "get_config_var", lambda _: None)
    monkeypatch.setattr(sys, "base_prefix", "/nowhere")

    def refuse(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(distribution.ctypes, "CDLL", refuse)
    with pytest.raises(SetupError, match="apt-get install libpython"):
        distribution.find_libpython()

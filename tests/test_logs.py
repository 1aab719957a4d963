from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator

import pytest

from orchestrator import logs
from orchestrator.settings import Settings


@pytest.fixture
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logs.TIMING.setLevel(logging.NOTSET)


@pytest.fixture
def log(restored: None) -> logging.Logger:
    return logging.getLogger("musetalk.test")


async def test_json_lines_name_session_and_turn(log, capsys) -> None:
    logs.setup_logging(Settings(log_format="json", _env_file=None))

    async def turn(number: str) -> None:
        with logs.bound(turn=number):
            await asyncio.sleep(0)
            log.info("spoke %d frames", 7)

    with logs.bound(session="s1"):
        await asyncio.gather(turn("t1"), turn("t2"))
    log.info("outside")
    first, second, outside = map(json.loads, capsys.readouterr().err.splitlines())
    assert (first["session"], first["turn"], second["turn"]) == ("s1", "t1", "t2")
    assert first["message"] == "spoke 7 frames" and first["level"] == "info"
    assert first["logger"] == "musetalk.test" and first["time"].endswith("Z")
    assert "session" not in outside


def test_text_lines(log, capsys) -> None:
    logs.setup_logging(Settings(_env_file=None))
    with logs.bound(session="s1"):
        log.warning("two\nlines")
    assert capsys.readouterr().err.endswith("WARNING two lines session=s1\n")


def test_exceptions_are_told(log, capsys) -> None:
    logs.setup_logging(Settings(log_format="json", _env_file=None))
    try:
        raise ValueError("why")
    except ValueError:
        log.exception("failed")
    assert "ValueError: why" in json.loads(capsys.readouterr().err)["exception"]


@pytest.mark.parametrize("wanted", [False, True])
def test_timing_lines_only_on_demand(restored, capsys, wanted: bool) -> None:
    logs.setup_logging(Settings(debug_timing=wanted, _env_file=None))
    logs.timing("tts", start=0.1, seconds=0.25)
    text = capsys.readouterr().err
    assert ("DEBUG tts start=0.1 seconds=0.25" in text) is wanted
    assert bool(text) is wanted


def test_libraries_do_not_log_what_they_send(restored, capsys) -> None:
    logs.setup_logging(Settings(debug_timing=True, _env_file=None))
    for name in ("openai", "httpx", "engineio.server"):
        logging.getLogger(name).info("secret words")
    assert not capsys.readouterr().err

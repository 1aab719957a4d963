from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from orchestrator.errors import MediaError, SetupError
from orchestrator.speech import ffmpeg
from orchestrator.speech.ffmpeg import execute, file_url, last_words, run_ffmpeg

RAW = ["-f", "s16le", "-ar", "16000", "-ac", "1"]
SINE = ["-f", "lavfi", "-i", "sine=d=1:r=16000"]
ENDLESS = ["-re", "-f", "lavfi", "-i", "anullsrc"]


def children() -> set[int]:
    """Living ffmpeg processes of this one."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
                name = (entry / "comm").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(fields[1]) == os.getpid() and "ffmpeg" in name:
                found.add(int(entry.name))
    return found


async def test_bytes_in_bytes_out() -> None:
    pcm = os.urandom(3_000_000)  # far more than a pipe holds, both ways at once
    assert await run_ffmpeg([*RAW, "-i", "pipe:0", *RAW, "pipe:1"], pcm, timeout=30) == pcm


async def test_an_early_end_of_reading_is_no_error() -> None:
    pcm = bytes(8_000_000)
    out = await run_ffmpeg([*RAW, "-i", "pipe:0", "-t", "0.5", *RAW, "pipe:1"], pcm, timeout=30)
    assert len(out) == 16_000


async def test_failure_is_one_clear_line() -> None:
    with pytest.raises(MediaError) as caught:
        await run_ffmpeg(["-i", "pipe:0", *RAW, "pipe:1"], b"no media at all" * 99, timeout=30)
    assert "Invalid data" in caught.value.message
    assert "\n" not in caught.value.message


async def test_time_out_kills() -> None:
    started = time.monotonic()
    with pytest.raises(MediaError, match=r"within 0\.5 s"):
        await run_ffmpeg([*ENDLESS, *RAW, "pipe:1"], timeout=0.5)
    assert time.monotonic() - started < 10
    assert not children()


async def test_cancel_kills() -> None:
    task = asyncio.create_task(run_ffmpeg([*ENDLESS, *RAW, "pipe:1"], timeout=60))
    while not children():  # noqa: ASYNC110 -- the process table has no event to wait for
        await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not children()


async def test_output_is_bounded() -> None:
    with pytest.raises(MediaError, match="larger than 100000 bytes"):
        await run_ffmpeg(
            ["-f", "lavfi", "-i", "anullsrc", *RAW, "pipe:1"], timeout=60, max_output=100_000
        )
    assert not children()


async def test_other_protocols_are_closed() -> None:
    with pytest.raises(MediaError):
        await run_ffmpeg(["-i", "http://127.0.0.1:9/x.wav", *RAW, "pipe:1"], timeout=30)
    finished = await asyncio.gather(
        execute(["-i", "concat:a.wav|b.wav", *RAW, "pipe:1"], timeout=30), return_exceptions=True
    )
    assert isinstance(finished[0], MediaError)


async def test_restrictions_hold_for_every_input(tmp_path: Path) -> None:
    """Each input gets its own: ffmpeg's input options count only for the next input."""
    first = tmp_path / "a.wav"
    await run_ffmpeg([*SINE, file_url(first)], timeout=30)
    with pytest.raises(MediaError):
        await run_ffmpeg(
            ["-i", file_url(first), "-i", "http://127.0.0.1:9/x", *RAW, "pipe:1"], timeout=30
        )


async def test_odd_file_names_are_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("-i.wav", "http:x.wav", "with space %03d.wav", "concat:b.wav"):
        await run_ffmpeg([*SINE, file_url(Path(name))], timeout=30)
        assert (tmp_path / name).stat().st_size > 30_000
        pcm = await run_ffmpeg(["-i", file_url(Path(name)), *RAW, "pipe:1"], timeout=30)
        assert len(pcm) == 32_000


async def test_a_missing_program_is_a_set_up_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ffmpeg, "ffmpeg_path", lambda: "/not/there/ffmpeg")
    with pytest.raises(SetupError, match="cannot be started"):
        await run_ffmpeg(["-version"], timeout=5)


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ("[mov @ 0x1] moov atom not found\nConversion failed!\n\n", "moov atom not found"),
        ("a\nStream map matches no streams.\nTo ignore this\n", "Stream map matches no streams."),
        ("Conversion failed!", "Conversion failed!"),
        ("", ""),
    ],
)
def test_last_words(log: str, words: str) -> None:
    assert last_words(log) == words

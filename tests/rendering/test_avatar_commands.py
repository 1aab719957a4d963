"""``musetalk avatar`` in a terminal, with a real tritonserver: what is kept, what is refused."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import pytest

from orchestrator.inference import EmbeddedTriton
from orchestrator.rendering.gallery import PORTRAITS
from tests.avatars.heads import U8, drawn, turned

pytestmark = pytest.mark.triton

Musetalk = Callable[..., Awaitable[tuple[int, str, str]]]

CONSENT: Final = ("--consent", "Eileen Collins; NASA, public domain")


@pytest.fixture
async def musetalk(repository: Path, tmp_path: Path) -> AsyncIterator[Musetalk]:
    """Runs one command to its end: status, what it printed, what it said."""
    async with EmbeddedTriton(repository, brief=True) as server:
        environment = {
            **os.environ,
            "MUSETALK_CACHE_DIR": str(tmp_path / "cache"),
            "MUSETALK_TRITON": server.grpc_address,
            "COLUMNS": "200",
        }

        async def run(*arguments: str) -> tuple[int, str, str]:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "orchestrator.cli", "avatar", *arguments),
                env=environment,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            printed, said = await process.communicate()
            return process.returncode or 0, printed.decode(), said.decode()

        yield run


@pytest.fixture
def photograph(golden_chain: dict[str, U8]) -> U8:
    """NASA's portrait of Eileen Collins, U8[640,640,3] BGR."""
    return golden_chain["frames"][0]


async def test_an_avatar_is_added_listed_shown_and_removed(
    musetalk: Musetalk, photograph: U8, tmp_path: Path
) -> None:
    both = np.full((640, 1040, 3), 200, np.uint8)
    both[:, :640], both[:400, 640:] = photograph, cv2.resize(photograph, (400, 400))
    picture, sheet = tmp_path / "two.png", tmp_path / "seen" / "sheet.png"
    cv2.imwrite(str(picture), both)
    status, printed, said = await musetalk("add", str(picture), "--name", "eileen", *CONSENT)
    assert status == 0, said
    assert "eileen: 1 frames of 1040x640" in printed
    assert "note: several faces in the picture: the largest was taken" in printed
    assert "100%" in said

    status, printed, _ = await musetalk("list")
    rows = {line.split("│")[1].strip(): line for line in printed.splitlines() if "│" in line}
    assert status == 0 and {path.stem for path in PORTRAITS.glob("*.mp4")} <= set(rows)
    assert "1040x640" in rows["eileen"] and "NASA, public domain" in rows["eileen"]
    assert "250" in rows["mei"] and "1280x720" in rows["mei"] and "drawing" in rows["mei"]

    status, printed, _ = await musetalk("show", "eileen", "-o", str(sheet))
    drawing = cv2.imread(str(sheet))
    assert status == 0 and drawing is not None
    assert f"{drawing.shape[1]}x{drawing.shape[0]}" in printed
    plain = cv2.resize(both, drawing.shape[1::-1], interpolation=cv2.INTER_AREA)
    changed = np.argwhere(np.abs(drawing.astype(int) - plain).max(2) > 40)
    assert len(changed) > 500  # the box and the mask, on the larger face only
    assert changed[:, 1].max() < drawing.shape[1] * 640 / 1040

    assert (await musetalk("remove", "eileen"))[:2] == (0, "eileen is removed\n")
    status, _, said = await musetalk("show", "eileen", "-o", str(sheet))
    assert status == 1 and "there is no avatar 'eileen'" in said


@pytest.mark.slow
async def test_a_portrait_that_comes_along_can_be_shown(musetalk: Musetalk, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    status, printed, said = await musetalk("show", "mei", "-o", str(sheet))
    assert status == 0 and "sheet.png" in printed, said
    assert cv2.imread(str(sheet)).shape[1] == 3 * 420


@pytest.mark.slow
async def test_what_cannot_be_used_is_refused_in_one_line_and_leaves_nothing(
    musetalk: Musetalk, photograph: U8, tmp_path: Path
) -> None:
    (front,) = await drawn("mei")
    blank = np.full((500, 500, 3), 128, np.uint8)
    pictures = {
        "blank.png": (blank, "no face was found"),
        "small.png": (cv2.resize(photograph, (100, 100)), "too small"),
        "profile.png": (turned(front, -75), "turned away"),
        "huge.jpg": (np.full((8000, 8000, 3), 128, np.uint8), "8000x8000"),
    }
    expected = {name: words for name, (_, words) in pictures.items()}
    for name, (picture, _) in pictures.items():
        cv2.imwrite(str(tmp_path / name), picture)
    portrait = (PORTRAITS / "mei.mp4").read_bytes()
    for name, data, words in (
        ("cut.png", (tmp_path / "profile.png").read_bytes()[:5000], "damaged"),
        ("cut.mp4", portrait[: len(portrait) // 2], "is cut off after 4"),
        ("text.mp4", b"hello, I am a video\n" * 50, "no picture or video that can be used"),
        ("empty.mp4", b"", "is empty"),
    ):
        (tmp_path / name).write_bytes(data)
        expected[name] = words
    expected["missing.mp4"] = "no such file"

    for name, words in expected.items():
        status, printed, said = await musetalk(
            "add", str(tmp_path / name), "--name", "x", "--consent", "nobody is shown"
        )
        lines = [line for line in said.splitlines() if line.startswith("musetalk: ")]
        assert (status, printed) == (1, ""), (name, said)
        assert len(lines) == 1 and words in lines[0], (name, said)
        assert "Traceback" not in said, name
    status, _, said = await musetalk(
        "add", str(tmp_path / "blank.png"), "--name", "x", "--consent", " "
    )
    assert status == 1 and "did they agree" in said
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]

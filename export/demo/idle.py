"""Idle life: breathing, small head motion, blinks and glances that loop without a seam."""

from __future__ import annotations

import hashlib
import json
import math
import subprocess
from collections.abc import Iterator
from pathlib import Path

import imageio_ffmpeg
import numpy as np

from export.demo.head import Pose
from export.demo.mouth import REST
from export.demo.people import PEOPLE, Person
from export.demo.portrait import HEIGHT, WIDTH, crop_box, render
from orchestrator.errors import SetupError

FPS = 25
SECONDS = 10.0


def _pulse(t: float, at: float, length: float, period: float) -> float:
    """0 to 1 to 0 within `length` seconds from `at`, on a clock of `period` seconds."""
    x = ((t - at) % period) / length
    return 0.5 - 0.5 * math.cos(2 * math.pi * x) if x < 1 else 0.0


def _blink(t: float, at: float, period: float) -> float:
    """A blink: shut within 80 ms, open again within 160."""
    x = (t - at) % period
    if x < 0.08:
        return x / 0.08
    return max(0.0, 1 - (x - 0.12) / 0.16) if x >= 0.12 else 1.0


def _glance(t: float, at: float, hold: float, period: float) -> float:
    """A quick look aside that is held, then back."""
    x = (t - at) % period
    if x > hold:
        return max(0.0, 1 - (x - hold) / 0.08)
    return min(1.0, x / 0.08)


def idle_pose(person: Person, seconds: float, period: float = SECONDS) -> Pose:
    """Where the person is at that time of the loop; equal at 0 and at `period`.

    Args:
        person: seeds the rhythm, so that no two people move alike.
        seconds: time into the loop.
        period: length of the loop in seconds.
    """
    seed = hashlib.sha256(person.name.encode()).digest()
    rng = np.random.default_rng(list(seed[:8]))
    phase = rng.uniform(0, 2 * math.pi, 10)
    w = 2 * math.pi * seconds / period

    def sway(k: int, *terms: tuple[int, float]) -> float:
        return sum(a * math.sin(n * w + phase[(k + i) % 10]) for i, (n, a) in enumerate(terms))

    blinks = [0.9 + rng.uniform(0, 0.8), 4.1 + rng.uniform(0, 1.0), 7.6 + rng.uniform(0, 1.0)]
    look = 2.4 + rng.uniform(0, 1.2)
    side = 1.0 if rng.random() < 0.5 else -1.0
    glance = _glance(seconds, look, 0.9, period)
    return Pose(
        dx=sway(0, (1, 0.016), (2, 0.006)),
        dy=sway(1, (1, 0.007), (3, 0.004)),
        roll=sway(2, (1, 0.9), (2, 0.45)),
        yaw=sway(3, (1, 0.34), (3, 0.10)) + 0.15 * side * _pulse(seconds, look, 2.0, period),
        pitch=sway(4, (2, 0.25), (1, 0.2)),
        blink=max(_blink(seconds, b, period) for b in blinks),
        gaze_x=0.55 * side * glance + sway(5, (2, 0.06), (5, 0.04)),
        gaze_y=0.15 * glance + sway(6, (3, 0.06)),
        breath=0.5 - 0.5 * math.cos(3 * w),
        brows=0.25 * _pulse(seconds, look + 0.1, 1.6, period),
    )


def idle_frames(person: Person) -> Iterator[tuple[Pose, np.ndarray]]:
    """Pose and picture (U8[720, 1280, 3], BGR) of each frame of the loop, mouth at rest."""
    for i in range(round(SECONDS * FPS)):
        pose = idle_pose(person, i / FPS)
        yield pose, render(person, REST, pose)


def write_clip(person: Person, folder: Path, crf: int = 15) -> Path:
    """Write NAME.mp4 (H.264, 25 fps) and NAME.json with what is known about it.

    Args:
        person: who.
        folder: where both files go; made if it is missing.
        crf: quality of the video, lower is better.

    Returns:
        Path of the video.

    Raises:
        SetupError: ffmpeg failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{person.name}.mp4"
    command = [
        imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-v", "error", "-threads", "2",
        "-f", "rawvideo", "-pix_fmt", "bgr24", "-s", f"{WIDTH}x{HEIGHT}", "-r", str(FPS), "-i", "-",
        "-vf", "scale=out_color_matrix=bt709:out_range=tv", "-pix_fmt", "yuv420p",
        "-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709",
        "-c:v", "libx264", "-preset", "slow", "-tune", "animation", "-crf", str(crf),
        "-movflags", "+faststart", "-metadata", f"title={person.title}, drawn by this project",
        str(target),
    ]  # fmt: skip
    boxes = []
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        for pose, frame in idle_frames(person):
            boxes.append([round(v, 2) for v in crop_box(person, pose, margin=0.0)])
            process.stdin.write(frame.tobytes())
        process.stdin.close()
        if process.wait() != 0:
            raise SetupError(
                "ffmpeg could not write the idle clip.", remedy="see its message above"
            )
    note = {
        "name": person.name,
        "title": person.title,
        "fps": FPS,
        "frames": len(boxes),
        "width": WIDTH,
        "height": HEIGHT,
        "consent": "drawn by this project",
        "likeness": "nobody: an invented person",
        "sha256": hashlib.sha256(target.read_bytes()).hexdigest(),
        "box_format": "x0, y0, x1, y1 in pixels, nose bridge at the vertical centre, no margin",
        "boxes": boxes,
    }
    target.with_suffix(".json").write_text(json.dumps(note) + "\n")
    return target


def write_all(folder: Path) -> list[Path]:
    """Write the clips of everybody."""
    return [write_clip(person, folder) for person in PEOPLE]

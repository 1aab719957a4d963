"""Drawn heads, seen from any side."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from orchestrator.rendering.gallery import PORTRAITS
from orchestrator.speech.ffmpeg import file_url, run_ffmpeg

U8 = npt.NDArray[np.uint8]

HEAD: Final = (640, 346)
RADII: Final = (150, 205)


async def drawn(name: str, every: int = 250) -> list[U8]:
    """Each ``every``-th frame of a drawn portrait, U8[720,1280,3] BGR."""
    clip = file_url(PORTRAITS / f"{name}.mp4")
    some = ["-vf", f"select='not(mod(n,{every}))'", "-fps_mode", "passthrough"]
    arguments = ["-i", clip, *some, "-c:v", "rawvideo", "-pix_fmt", "bgr24", "-f", "rawvideo"]
    pixels = await run_ffmpeg([*arguments, "pipe:1"], timeout=60)
    return list(np.frombuffer(pixels, np.uint8).reshape(-1, 720, 1280, 3))


def turned(frame: U8, degrees: float) -> U8:
    """The drawn head as the front of a solid ellipsoid with a nose, seen from an angle."""
    (cx, cy), (rx, ry) = HEAD, RADII
    y, x = np.mgrid[-1 : 1 : complex(0, 8 * ry), -1 : 1 : complex(0, 8 * rx)]
    inside = x * x + y * y < 1
    x, y = x[inside], y[inside]
    nose = 0.35 * np.exp(-((x / 0.13) ** 2) - ((y - 0.12) / 0.2) ** 2)
    depth = np.sqrt(1 - x * x - y * y) + nose
    rows = (cy + y * ry).astype(int)
    colours = frame[rows, (cx + x * rx).astype(int)]
    angle = np.radians(degrees)
    columns = (cx + rx * (x * np.cos(angle) + depth * np.sin(angle))).astype(int)
    near = np.argsort(depth * np.cos(angle) - x * np.sin(angle))  # what is nearer comes last
    picture = np.full_like(frame, frame[20, 20])
    hair = [int(value) for value in frame[cy - ry + 20, cx]]
    cv2.ellipse(picture, HEAD, RADII, 0, 0, 360, hair, -1)
    picture[rows[near], columns[near]] = colours[near]
    return picture

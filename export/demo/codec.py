"""What a portrait's colours become on their way: drawn, written as a clip, read as an avatar.

H.264 and JPEG keep chroma in steps, and ffmpeg's conversions round it down: skin loses three to
four levels of blue and red. A checkpoint that is trained on the drawings themselves paints those
levels back, and that is a step of colour at the mask's border.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import cv2
import imageio_ffmpeg
import numpy as np
from numpy.typing import NDArray

from orchestrator.errors import SetupError

U8 = NDArray[np.uint8]
_WRITE = "scale=out_color_matrix=bt709:out_range=tv"
_READ = "scale=flags=lanczos:out_color_matrix=bt601:out_range=full,format=yuvj420p"


def _run(*arguments: str, given: bytes | None = None) -> bytes:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-v", "error", *arguments]
    done = subprocess.run(command, input=given, capture_output=True, check=False)
    if done.returncode:
        raise SetupError(f"ffmpeg: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def as_of_a_clip(images: U8) -> U8:
    """Pictures as they come out of an idle clip (``idle.py``) read as any clip is (``media.py``).

    Args:
        images: U8[n,h,w,3] BGR, h and w even; they need not be alike.

    Returns:
        The same shape.

    Raises:
        SetupError: ffmpeg failed.
    """
    height, width = images.shape[1:3]
    with tempfile.TemporaryDirectory() as folder:
        clip = str(Path(folder, "clip.mp4"))
        _run(
            *("-f", "rawvideo", "-pix_fmt", "bgr24", "-s", f"{width}x{height}", "-r", "25"),
            *("-i", "-", "-vf", _WRITE, "-pix_fmt", "yuv420p", "-colorspace", "bt709"),
            *("-color_primaries", "bt709", "-color_trc", "bt709", "-c:v", "libx264"),
            *("-preset", "veryfast", "-g", "1", "-crf", "15", clip),
            given=images.tobytes(),
        )
        stream = _run(
            *("-i", clip, "-vf", _READ, "-c:v", "mjpeg", "-q:v", "2"),
            *("-f", "image2pipe", "pipe:1"),
        )
    parts = stream.split(b"\xff\xd8\xff")[1:]
    found = [
        cv2.imdecode(np.frombuffer(b"\xff\xd8\xff" + part, np.uint8), cv2.IMREAD_COLOR)
        for part in parts
    ]
    result: U8 = np.stack(found).astype(np.uint8)  # type: ignore[arg-type] # ffmpeg's own JPEGs
    if result.shape != images.shape:
        raise SetupError(f"ffmpeg made {result.shape} of {images.shape}")
    return result

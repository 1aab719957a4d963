"""Settings of the H.264 encoder; ``make bench`` measures what each costs and how good it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from orchestrator.rendering.colour import COLOUR_TAGS


@dataclass(frozen=True)
class VideoPreset:
    """Settings of the H.264 encoder.

    Attributes:
        name: what benchmarks and logs call it.
        options: ffmpeg options of libx264.
    """

    name: str
    options: tuple[str, ...]


OFFLINE: Final = VideoPreset("offline", ("-preset", "veryfast", "-crf", "18"))
LIVE: Final = VideoPreset(
    "live",
    ("-preset", "ultrafast", "-tune", "zerolatency", "-crf", "26", "-x264-params", "no-deblock=0"),
)
"""x264's fastest, but with its deblocking filter: blocks would show on skin."""


def video_arguments(
    width: int, height: int, fps: int, preset: VideoPreset, threads: int = 2
) -> list[str]:
    """Ffmpeg arguments from I420 frames on standard input to H.264, without the output.

    Args:
        width: of the frames, even.
        height: of the frames, even.
        fps: frames a second; also half the distance of key frames.
        preset: encoder settings.
        threads: of the encoder.
    """
    return [
        *("-f", "rawvideo", "-pixel_format", "yuv420p", "-video_size", f"{width}x{height}"),
        *("-framerate", str(fps), "-i", "pipe:0"),
        *("-c:v", "libx264", *preset.options, "-pix_fmt", "yuv420p"),
        *("-threads", str(threads), "-g", str(2 * fps), "-vf", COLOUR_TAGS),
    ]

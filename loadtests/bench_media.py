"""What compositing and encoding cost on one core, and how good the encoded picture is."""

from __future__ import annotations

import re
import resource
import statistics
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from orchestrator.avatars.masks import BlendMask, blend_mask
from orchestrator.rendering.colour import even, to_i420
from orchestrator.rendering.composite import composite
from orchestrator.rendering.presets import LIVE, OFFLINE, VideoPreset, video_arguments
from orchestrator.speech.ffmpeg import ffmpeg_path

U8 = npt.NDArray[np.uint8]

GOLDEN: Final = Path(__file__).resolve().parent.parent / "tests" / "golden"
SIZES: Final = ((640, 360), (1280, 720), (1920, 1080))
FACE_HEIGHT: Final = 0.5
"""Height of the face's box as a part of the frame's: a close head-and-shoulders shot."""

PRESETS: Final = (
    LIVE,
    VideoPreset("superfast", ("-preset", "superfast", "-tune", "zerolatency", "-crf", "25")),
    VideoPreset("veryfast", ("-preset", "veryfast", "-tune", "zerolatency", "-crf", "25")),
    OFFLINE,
)
_FPS: Final = 25
_NOISE: Final = 1.5
"""Standard deviation of the clip's sensor noise in levels: that of filmed, once encoded video."""


@dataclass(frozen=True)
class CompositeRow:
    """Cost of putting one face into one frame."""

    width: int
    height: int
    face: tuple[int, int]
    ms: float


@dataclass(frozen=True)
class EncodeRow:
    """Cost and quality of one encoder setting; processor time of conversion and ffmpeg."""

    preset: str
    width: int
    height: int
    convert_ms: float
    encode_ms: float
    kbit_s: float
    ssim: float
    vmaf: float | None

    @property
    def ms(self) -> float:
        """Processor time of a frame in all."""
        return self.convert_ms + self.encode_ms


def compositing(runs: int = 60) -> list[CompositeRow]:
    """Median time of ``composite`` at each size, on one core.

    Args:
        runs: frames timed at each size.
    """
    chain = np.load(GOLDEN / "chain.npz")
    photo: U8 = chain["frames"][0]
    face: U8 = chain["faces"][0]
    box = chain["boxes"][0]
    blend = np.load(GOLDEN / "blend.npz")
    square, alpha = blend["crop_squares"][0], blend["mask_jaw_0"]
    rows = []
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        for width, height in SIZES:
            frame = np.asarray(cv2.resize(photo, (width, height)), dtype=np.uint8)
            scale = FACE_HEIGHT * height / (box[3] - box[1])
            shift = (
                np.array([width, height] * 2) / 2
                - np.tile([(box[0] + box[2]) / 2, (box[1] + box[3]) / 2], 2) * scale
            )
            face_box = np.rint(box * scale + shift).astype(int)
            mask = _scaled_mask(alpha, square * scale + shift, width, height)
            seconds = []
            for _ in range(runs + 3):
                start = time.perf_counter()
                composite(frame, face, face_box, mask)
                seconds.append(time.perf_counter() - start)
            size = (int(face_box[2] - face_box[0]), int(face_box[3] - face_box[1]))
            rows.append(CompositeRow(width, height, size, statistics.median(seconds[3:]) * 1000))
    finally:
        cv2.setNumThreads(threads)
    return rows


def _scaled_mask(alpha: U8, square: npt.NDArray[np.float64], width: int, height: int) -> BlendMask:
    """A golden mask at another size."""
    x0, y0, x1, y1 = (int(value) for value in np.rint(square))
    scaled = cv2.resize(alpha, (x1 - x0, y1 - y0), interpolation=cv2.INTER_LINEAR)
    return blend_mask(np.asarray(scaled, dtype=np.uint8), (x0, y0, x1, y1), width, height)


def portrait_clip(width: int, height: int, frames: int) -> Iterator[U8]:
    """A talking portrait to encode: the photograph's head sways, its mouth opens, noise over it.

    Args:
        width: of the frames.
        height: of the frames.
        frames: number of frames.

    Yields:
        U8[H,W,3] BGR.
    """
    rng = np.random.default_rng(0)
    photo = np.load(GOLDEN / "chain.npz")["frames"][0]
    still = cv2.resize(photo, (width, width), interpolation=cv2.INTER_CUBIC)[:height]
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    head = np.exp(
        -(
            (
                ((x - width * 0.45) / (width * 0.14)) ** 2
                + ((y - height * 0.4) / (height * 0.35)) ** 2
            )
            ** 2
        )
    )[..., None].astype(np.float32)
    for index in range(frames):
        turn = cv2.getRotationMatrix2D(
            (width * 0.45, height * 0.6), 1.2 * float(np.sin(index / 20)), 1
        )
        turn[:, 2] += [3 * np.sin(index / 12), 2 * np.cos(index / 17)]
        moved = cv2.warpAffine(
            still, turn, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT
        )
        frame = moved * head + still * (1 - head)
        opening = int(2 + height * 0.04 * abs(np.sin(index / 3)))
        mouth = (int(width * 0.45), int(height * 0.48))
        cv2.ellipse(frame, mouth, (width // 28, opening), 0, 0, 360, (40, 30, 60), -1)
        frame += rng.normal(0, _NOISE, frame.shape).astype(np.float32)
        yield np.clip(np.rint(frame), 0, 255).astype(np.uint8)


def encoding(
    width: int = 1280, height: int = 720, frames: int = 100, runs: int = 3
) -> list[EncodeRow]:
    """Processor time a frame and quality of each preset, one encoder thread.

    Quality is measured against the I420 frames that the encoder got: VMAF where this ffmpeg has
    ``libvmaf``, SSIM in any case.

    Args:
        width: of the clip.
        height: of the clip.
        frames: length of the clip.
        runs: the fastest of them counts; the others measure the neighbours.
    """
    clip = list(portrait_clip(width, height, frames))
    convert = min(_convert_seconds(clip) for _ in range(runs)) / frames
    raw = b"".join(to_i420(frame).tobytes() for frame in clip)
    rows = []
    with TemporaryDirectory(prefix="musetalk-bench-") as folder:
        source = Path(folder) / "source.yuv"
        source.write_bytes(raw)
        for preset in PRESETS:
            output = Path(folder) / f"{preset.name}.mp4"
            arguments = video_arguments(even(width), even(height), _FPS, preset, threads=1)
            seconds = min(_cpu_seconds([*arguments, str(output)], raw) for _ in range(runs))
            rows.append(
                EncodeRow(
                    preset.name,
                    width,
                    height,
                    convert * 1000,
                    seconds / frames * 1000,
                    output.stat().st_size * 8 / frames * _FPS / 1000,
                    *_quality(output, source, even(width), even(height)),
                )
            )
    return rows


def _convert_seconds(clip: list[U8]) -> float:
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        start = time.process_time()
        for frame in clip:
            to_i420(frame)
        return time.process_time() - start
    finally:
        cv2.setNumThreads(threads)


def _cpu_seconds(arguments: list[str], raw: bytes) -> float:
    """Processor time of one ffmpeg, user and system, and of writing to it."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [ffmpeg_path(), "-hide_banner", "-loglevel", "error", "-y", *arguments]
    start = time.process_time()
    with subprocess.Popen(command, stdin=subprocess.PIPE, bufsize=0) as process:
        assert process.stdin is not None
        view = memoryview(raw)
        while view:
            view = view[process.stdin.write(view) :]
        process.stdin.close()
        status = process.wait(timeout=300)
    writing = time.process_time() - start
    if status:
        raise RuntimeError(f"ffmpeg ended with status {status}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return writing + (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime)


def _quality(encoded: Path, source: Path, width: int, height: int) -> tuple[float, float | None]:
    """SSIM (0 to 1) and VMAF (0 to 100; None without libvmaf) against the source frames."""
    ssim = _filter_score("ssim", r"SSIM .*All:([\d.]+)", encoded, source, width, height)
    if ssim is None:
        raise RuntimeError(f"{ffmpeg_path()} has no ssim filter")
    vmaf = _filter_score(
        "libvmaf=n_threads=2:n_subsample=5",
        r"VMAF score: ([\d.]+)",
        encoded,
        source,
        width,
        height,
    )
    return ssim, vmaf


def _filter_score(
    name: str, pattern: str, encoded: Path, source: Path, width: int, height: int
) -> float | None:
    graph = (
        f"[0:v]setpts=N/{_FPS}/TB[encoded];[1:v]setpts=N/{_FPS}/TB[source];[encoded][source]{name}"
    )
    result = subprocess.run(
        [
            *(ffmpeg_path(), "-hide_banner", "-nostats", "-i", str(encoded)),
            *("-f", "rawvideo", "-pixel_format", "yuv420p", "-video_size", f"{width}x{height}"),
            *("-framerate", str(_FPS), "-i", str(source)),
            *("-lavfi", graph, "-f", "null", "-"),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    found = re.search(pattern, result.stderr)
    return float(found.group(1)) if found else None

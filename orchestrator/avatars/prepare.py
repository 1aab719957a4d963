"""From a picture or a video to an avatar: frames, face, masks, latents."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from orchestrator.avatars.avatar import Avatar
from orchestrator.avatars.known import known_track
from orchestrator.avatars.masks import (
    BlendMask,
    Box,
    MaskMode,
    blend_mask,
    blend_square,
    region,
    square_mask,
)
from orchestrator.avatars.media import decode, read_frames, read_video, source_digest
from orchestrator.avatars.regions import landmark_labels, square_picture
from orchestrator.avatars.store import AvatarFile
from orchestrator.avatars.tracking import Track, track
from orchestrator.errors import SetupError, UsageError
from orchestrator.inference import Inference
from orchestrator.settings import Settings

U8 = npt.NDArray[np.uint8]
F16 = npt.NDArray[np.float16]

FORMAT: Final = 3
"""Of what preparation computes; a change makes older cached avatars unused."""
CROP: Final = 256
_BATCH: Final = 8
_PARSE_BATCH: Final = 4
_TRACK_SHARE: Final = 0.6
"""Part of the progress that finding the face takes."""

Progress = Callable[[float], None]


def _crop(frame: U8, box: Box) -> U8:
    x0, y0, x1, y1 = box
    crop = cv2.resize(frame[y0:y1, x0:x1], (CROP, CROP), interpolation=cv2.INTER_LANCZOS4)
    return np.asarray(crop, dtype=np.uint8)


def _box(row: npt.NDArray[np.int32]) -> Box:
    x0, y0, x1, y1 = (int(value) for value in row)
    return x0, y0, x1, y1


async def weights_fingerprint(inference: Inference) -> str:
    """What a server's encoder makes of a fixed picture, hashed: names weights and precision."""
    ramp = np.arange(CROP * CROP * 3, dtype=np.uint32).reshape(1, CROP, CROP, 3)
    probe = (ramp * np.uint32(2654435761) >> np.uint32(24)).astype(np.uint8)
    latents = await inference.encode_crops(probe)
    return hashlib.sha256(np.ascontiguousarray(latents).tobytes()).hexdigest()[:16]


async def encode_latents(
    jpegs: tuple[bytes, ...],
    boxes: npt.NDArray[np.int32],
    inference: Inference,
    progress: Progress = lambda _: None,
) -> F16:
    """Latents F16[n,8,32,32] of the faces of all frames.

    Args:
        jpegs: the frames.
        boxes: I32[n,4] of the faces.
        inference: the server.
        progress: told the part that is done, 0 to 1.
    """

    def crops(start: int) -> U8:
        span = slice(start, start + _BATCH)
        pairs = zip(jpegs[span], boxes[span], strict=True)
        return np.stack([_crop(decode(jpeg), _box(box)) for jpeg, box in pairs])

    parts: list[F16] = []
    following = asyncio.create_task(asyncio.to_thread(crops, 0))
    try:
        for start in range(0, len(jpegs), _BATCH):
            batch = await following
            if start + _BATCH < len(jpegs):  # is decoded while the server encodes this one
                following = asyncio.create_task(asyncio.to_thread(crops, start + _BATCH))
            parts.append(await inference.encode_crops(batch))
            progress(min(1.0, (start + _BATCH) / len(jpegs)))
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
    return np.concatenate(parts)


class _StoppedError(Exception):
    """Nobody waits for this tracking any more."""


async def _track(jpegs: tuple[bytes, ...], progress: Progress) -> Track:
    """Track in a thread, which ends at its next frame when this call is cancelled."""
    stopped = threading.Event()

    def tell(part: float) -> None:
        if stopped.is_set():
            raise _StoppedError
        progress(part)

    try:
        return await asyncio.to_thread(track, jpegs, tell)
    finally:
        stopped.set()


async def _labels(
    jpegs: tuple[bytes, ...], found: Track, squares: list[Box], parser: Inference | None
) -> list[U8]:
    """Face classes of each blend square; drawn from the landmarks without a parser."""
    if parser is None:
        return await asyncio.to_thread(lambda: list(map(landmark_labels, found.landmarks, squares)))
    labels: list[U8] = []
    for start in range(0, len(jpegs), _PARSE_BATCH):

        def pictures(start: int = start) -> U8:
            span = slice(start, start + _PARSE_BATCH)
            pairs = zip(jpegs[span], squares[span], strict=True)
            return np.stack([square_picture(decode(jpeg), square) for jpeg, square in pairs])

        labels += list(await parser.parse_faces(await asyncio.to_thread(pictures)))
    return labels


async def _masks(
    jpegs: tuple[bytes, ...],
    found: Track,
    squares: list[Box],
    size: tuple[int, int],
    mode: MaskMode,
    parser: Inference | None,
) -> tuple[BlendMask, ...]:
    """Blend masks of all frames of a size (width, height)."""
    labels = await _labels(jpegs, found, squares, parser)

    def mask(label: U8, row: npt.NDArray[np.int32], square: Box) -> BlendMask:
        box = _box(row)
        return blend_mask(square_mask(region(label, mode), box, square), square, *size)

    return await asyncio.to_thread(lambda: tuple(map(mask, labels, found.boxes, squares)))


def prepared_path(settings: Settings, key: str) -> Path:
    """Where the cache keeps what was prepared, by the id of the avatar."""
    return settings.cache_dir / "prepared" / f"{key}.npz"


async def prepare_avatar(
    source: Path,
    *,
    inference: Inference,
    settings: Settings,
    name: str,
    consent: str,
    progress: Progress | None = None,
    mask_mode: MaskMode = "jaw",
) -> Avatar:
    """Prepare an avatar; the same source, settings and weights are prepared only once.

    Args:
        source: picture or video of one person.
        inference: encodes the face, and parses it where the server can.
        settings: limits, and the folder of the cache.
        name: of the avatar.
        consent: who agreed to the use of their face, and how; kept with the avatar.
        progress: told the part that is done, 0 to 1; never goes back.
        mask_mode: MuseTalk's parsing mode.

    Raises:
        UsageError: no consent was given.
        MediaError: the file cannot be used.
        AvatarError: no usable face in it.
        InferenceError: the server failed.
    """
    if not consent.strip():
        raise UsageError(
            "whose face is it, and did they agree to this?",
            remedy='say so: --consent "who agreed, and how"',
        )
    tell = progress or (lambda _: None)
    digest = await asyncio.to_thread(source_digest, source, settings)
    weights = await weights_fingerprint(inference)
    parsed = await inference.has_model("face_parsing")
    key = hashlib.sha256(
        f"{FORMAT} {digest} {weights} {mask_mode} {parsed} {settings.max_avatar_seconds}".encode()
    ).hexdigest()[:32]
    cached = AvatarFile(prepared_path(settings, key))
    try:
        avatar = await asyncio.to_thread(cached.read)
    except SetupError:  # damaged: made again, and replaced
        avatar = None
    if avatar is None:
        found = await asyncio.to_thread(known_track, digest)
        # What was followed before is a clip; whether it is a picture need not be tried.
        frames = await (read_frames if found is None else read_video)(source, settings)
        share = 0.0
        if found is None or len(found.boxes) != len(frames.jpegs):
            share = _TRACK_SHARE
            found = await _track(frames.jpegs, lambda part: tell(part * share))
        jpegs = frames.jpegs[found.start : found.start + len(found.boxes)]
        squares = [blend_square(_box(box)) for box in found.boxes]
        height, width = decode(jpegs[0]).shape[:2]
        parser = inference if parsed else None
        drawing = asyncio.create_task(
            _masks(jpegs, found, squares, (width, height), mask_mode, parser)
        )
        try:  # masks are drawn here while the server encodes
            latents = await encode_latents(
                jpegs, found.boxes, inference, lambda part: tell(share + part * (1 - share))
            )
            masks = await drawing
        finally:
            drawing.cancel()
            await asyncio.gather(drawing, return_exceptions=True)
        avatar = Avatar(
            id=key,
            name=name,
            width=width,
            height=height,
            jpegs=jpegs,
            latents=latents,
            boxes=found.boxes,
            squares=np.array(squares, np.int32),
            masks=masks,
            metadata={
                "source": source.name,
                "source_sha256": digest,
                "weights": weights,
                "masks": "face parsing" if parsed else "landmarks",
                "notes": [*frames.notes, *found.notes],
            },
        )
        await asyncio.to_thread(cached.write, avatar)
        await asyncio.to_thread(
            trim_cache, cached.path.parent, settings.max_prepared_bytes, keep=cached.path
        )
    else:
        with contextlib.suppress(OSError):
            os.utime(cached.path)  # the least recently used go first
    tell(1.0)
    metadata = {
        **avatar.metadata,
        "consent": consent.strip(),
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    return dataclasses.replace(avatar, name=name, metadata=metadata)


def trim_cache(folder: Path, limit: int, *, keep: Path) -> None:
    """Delete the preparations that were not used for longest, until the rest fits.

    Avatars that are in use are in memory: no file of the cache is read twice, and one that is
    missing is made again.

    Args:
        folder: of the cache.
        limit: bytes that all its files may take.
        keep: the newest one, which stays whatever its size.
    """
    files = []
    for path in folder.glob("[!.]*.npz"):
        with contextlib.suppress(OSError):  # another process was faster
            about = path.stat()
            files.append((about.st_mtime_ns, about.st_size, path))
    total = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if total <= limit:
            return
        if path != keep:
            path.unlink(missing_ok=True)
            total -= size


async def with_current_latents(avatar: Avatar, inference: Inference) -> Avatar:
    """The avatar as it is, or with latents of the weights that the server has now."""
    weights = await weights_fingerprint(inference)
    if avatar.metadata.get("weights") == weights:
        return avatar
    latents = await encode_latents(avatar.jpegs, avatar.boxes, inference)
    return dataclasses.replace(
        avatar, latents=latents, metadata={**avatar.metadata, "weights": weights}
    )

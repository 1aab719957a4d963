"""Media and end-to-end rows: compositing, encoding, and the renders of ``bench_claims``."""

from __future__ import annotations

import asyncio

from loadtests.bench_claims import claims
from loadtests.bench_media import compositing, encoding
from loadtests.bench_report import Row
from orchestrator.rendering.renderer import open_renderer
from orchestrator.settings import settings
from orchestrator.speech.tts import synthesizer


async def media() -> list[Row]:
    """Compositing at each size and encoding at 720p, processor milliseconds a frame."""
    section = "media, one core"
    rows = [
        Row(
            section,
            f"compositing at {row.width}x{row.height}",
            row.ms,
            "ms",
            4.0 if row.height == 720 else None,
            "most",
            note=f"face of {row.face[0]}x{row.face[1]}",
        )
        for row in await asyncio.to_thread(compositing)
    ]
    rows += [
        Row(
            section,
            f"H.264 {row.preset} at {row.width}x{row.height}",
            row.ms,
            "ms",
            note=f"{row.kbit_s:.0f} kbit/s, SSIM {row.ssim:.4f}"
            + ("" if row.vmaf is None else f", VMAF {row.vmaf:.1f}"),
        )
        for row in await asyncio.to_thread(encoding)
    ]
    return rows


async def claimed_gains() -> list[Row]:
    """Percent of a render's time that each old claim saves, with the installed repository.

    Raises:
        MuseTalkError: Triton, the voice or the avatar cannot be used.
    """
    given = settings()
    voice = synthesizer(given)
    try:
        async with open_renderer(given) as renderer:
            avatar = await renderer.avatar(None)
            measured = await claims(
                avatar, renderer.inference, voice, weights=renderer.weights, runs=2
            )
    finally:
        await voice.close()
    return [
        Row(
            "claims, text to MP4",
            row.claim,
            row.measured,
            "%",
            note=f"claimed {row.claimed:g} %; {row.before:.2f} s to {row.after:.2f} s; {row.note}",
        )
        for row in measured
    ]

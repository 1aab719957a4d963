"""Rows of what others measure: compositing and encoding, whole renders, the replaced backend."""

from __future__ import annotations

import asyncio
from pathlib import Path

from loadtests.bench_claims import claims
from loadtests.bench_media import SIZES, compositing, encoding
from loadtests.bench_report import Row
from loadtests.old_way import DEMO, compare
from orchestrator.rendering.renderer import open_renderer
from orchestrator.settings import settings
from orchestrator.speech.tts import synthesizer


async def media() -> list[Row]:
    """Compositing and encoding at each size, processor milliseconds a frame."""
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
        for size in SIZES
        for row in await asyncio.to_thread(encoding, *size)
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


async def against_old_way(cache: Path) -> list[Row]:
    """The replaced backend and this one on the same reply, with the demo checkpoint.

    Args:
        cache: of the service.

    Raises:
        subprocess.CalledProcessError: a process of the old way failed.
        TimeoutError: the service did not become ready.
    """
    old, new = await compare(DEMO, None, cache)
    steps = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in old.steps().items())
    return [
        Row(
            "the old way",
            "first frame sooner than the old way's",
            old.total / new.first_frame,
            "x",
            20.0,
            note=f"{new.first_frame:.2f} s, the old way {old.total:.1f} s: {steps}",
        ),
        Row(
            "the old way",
            "a whole MP4 faster than the old way's without its LLM",
            (old.total - old.llm) / new.whole,
            "x",
            3.0,
            note=f"{new.whole:.1f} s and {old.total - old.llm:.1f} s",
        ),
    ]

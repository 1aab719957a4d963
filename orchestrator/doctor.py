"""``musetalk doctor``: what this machine has, and what to do about what it lacks.

Each check is a plain function that reads files or asks a library; only ``nvidia-smi`` and
ffmpeg are programs. The service's health routes use none of this.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import openvino as ov
import psutil
from rich.console import Console
from rich.text import Text

from orchestrator.api.keys import KeyFile, keys_path
from orchestrator.errors import MuseTalkError
from orchestrator.inference import connect
from orchestrator.inference.distribution import find_distribution
from orchestrator.listening import check_loopback, listen
from orchestrator.settings import Settings
from orchestrator.speech.ffmpeg import ffmpeg_path
from orchestrator.speech.piper import find_voice

State = Literal["ok", "note", "missing"]
PROGRAM_TIMEOUT = 5.0
MIN_FREE_GB = 2.0
MIN_MEMORY_GB = 4.0
NEEDED_MODELS = ("whisper_encoder", "vae_encoder", "lipsync")
_BUILD = "musetalk export build --checkpoint DIR --repository DIR"


@dataclass(frozen=True)
class Finding:
    """One line: ``missing`` stops serving on this machine, ``note`` does not."""

    name: str
    state: State
    text: str
    remedy: str = ""


def _run(*command: str) -> str:
    return subprocess.run(
        command, capture_output=True, text=True, timeout=PROGRAM_TIMEOUT, check=True
    ).stdout


def check_gpu(_: Settings) -> Finding:
    """GPU, driver and memory, as NVIDIA's own tool tells them."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return Finding(
            "GPU",
            "note",
            "none (no nvidia-smi): models run on the CPU",
            "for a GPU install NVIDIA's driver",
        )
    query = "--query-gpu=name,driver_version,memory.total,compute_cap"
    try:
        lines = _run(program, query, "--format=csv,noheader").strip().splitlines()
    except (OSError, subprocess.SubprocessError) as error:
        return Finding("GPU", "note", f"nvidia-smi failed: {error}", "check the driver: dmesg")
    return Finding("GPU", "ok", "; ".join(lines))


def check_tensorrt(_: Settings) -> Finding:
    """TensorRT's and CUDA's Python packages, without loading them."""
    found = [name for name in ("tensorrt", "polygraphy") if importlib.util.find_spec(name)]
    cuda = os.environ.get("CUDA_VERSION")
    if not found:
        return Finding(
            "TensorRT", "note", "not installed: engines are built inside the Triton image"
        )
    return Finding("TensorRT", "ok", f"{', '.join(found)}; CUDA {cuda or 'from the wheels'}")


def check_cpu(_: Settings) -> Finding:
    """Cores, and the precision that ``auto`` becomes here."""
    offered = ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    name = ov.Core().get_property("CPU", "FULL_DEVICE_NAME")
    cores = len(os.sched_getaffinity(0))
    flags = Path("/proc/cpuinfo").read_text()
    unit = "AMX" if "amx_bf16" in flags else "AVX512-BF16" if "avx512_bf16" in flags else ""
    if "BF16" in offered:
        text = f"{name}, {cores} cores, bf16 in hardware ({unit}): precision auto is bf16"
        return Finding("CPU", "ok", text)
    return Finding("CPU", "ok", f"{name}, {cores} cores, no bf16: precision auto is fp32")


def check_memory(_: Settings) -> Finding:
    """Memory that is free now."""
    free = psutil.virtual_memory().available / 1e9
    text = f"{free:.1f} GB free"
    if free < MIN_MEMORY_GB:
        return Finding("memory", "note", text, "full-size models need 8 GB, the demo 2 GB")
    return Finding("memory", "ok", text)


def check_ffmpeg(_: Settings) -> Finding:
    """The ffmpeg binary and the two encoders every video needs."""
    try:
        path = ffmpeg_path()
        encoders = _run(path, "-hide_banner", "-encoders")
    except (MuseTalkError, OSError, subprocess.SubprocessError) as error:
        return Finding("ffmpeg", "missing", str(error), "pip install imageio-ffmpeg")
    lacking = [name for name in ("libx264", "aac") if f" {name} " not in encoders]
    if lacking:
        return Finding(
            "ffmpeg", "missing", f"{path} lacks {', '.join(lacking)}", "unset IMAGEIO_FFMPEG_EXE"
        )
    return Finding("ffmpeg", "ok", path)


async def _lacking_models(settings: Settings) -> list[str]:
    """What every reply needs and the settings' Triton does not serve."""
    async with connect(settings) as inference:
        return [name for name in NEEDED_MODELS if not await inference.has_model(name)]


def check_triton(settings: Settings) -> Finding:
    """The embedded server's files, or what another server answers."""
    if settings.triton is not None:
        try:
            lacking = asyncio.run(_lacking_models(settings))
        except MuseTalkError as error:
            return Finding("Triton", "missing", error.message, error.remedy)
        if lacking:
            text = f"{settings.triton} does not serve {', '.join(lacking)}"
            return Finding("Triton", "missing", text, "check that server's model repository")
        return Finding("Triton", "ok", f"{settings.triton} serves the models")
    try:
        distribution = find_distribution()
    except MuseTalkError as error:
        return Finding("Triton", "missing", error.message, error.remedy)
    return Finding("Triton", "ok", f"embedded, {distribution.binary}")


def check_repository(settings: Settings) -> Finding:
    """The model repository and its manifest."""
    if settings.triton is not None:
        return Finding("models", "ok", "those of the external server")
    path = settings.repository / "manifest.json"
    if not path.is_file():
        return Finding("models", "missing", f"there is no {path}", _BUILD)
    try:
        manifest = json.loads(path.read_text())
        text = f"{settings.repository}: {manifest['decoder']} decoder, {manifest['weights_id']}"
        names, missing = list(manifest["models"]), manifest["missing"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return Finding("models", "missing", f"{path} cannot be read: {error!r}", _BUILD)
    absent = [
        f"{name}/{file}"
        for name in names
        for file in ("config.pbtxt", "1/model.onnx")
        if not (settings.repository / name / file).is_file()
    ]
    if absent:
        return Finding("models", "missing", f"{text}, without {', '.join(absent)}", _BUILD)
    if "whisper_encoder" in missing:
        return Finding(
            "models", "missing", f"{text}, without whisper_encoder", "add whisper/ and build again"
        )
    return Finding("models", "ok", text)


def check_speech(settings: Settings) -> Finding:
    """The chosen text-to-speech engine, and its key."""
    if settings.tts == "openai":
        if settings.tts_api_key is None and settings.tts_base_url is None:
            return Finding(
                "speech", "missing", "OpenAI-compatible, no key", "set MUSETALK_TTS_API_KEY"
            )
        return Finding("speech", "ok", f"OpenAI-compatible, {settings.tts_base_url or 'default'}")
    try:
        voice = find_voice(settings.piper_voice)
    except MuseTalkError as error:
        return Finding("speech", "missing", error.message, error.remedy)
    return Finding("speech", "ok", f"Piper, voice {voice.stem}")


def check_port(settings: Settings) -> Finding:
    """The ports of the service, and whether it may listen on that address."""
    ports = {"MUSETALK_PORT": settings.port, "MUSETALK_GRPC_PORT": settings.grpc_port}
    try:
        check_loopback(settings.host, keys=bool(KeyFile(keys_path(settings)).keys()))
    except MuseTalkError as error:
        return Finding("port", "missing", error.message, error.remedy)
    with contextlib.ExitStack() as opened:  # all at once: two of them may be the same
        for variable, port in ports.items():
            if port is None:
                continue
            try:
                opened.enter_context(listen(settings.host, port))
            except MuseTalkError as error:
                remedy = f"stop what uses it, or set {variable}"
                return Finding("port", "missing", error.message, remedy)
    free = " and ".join(str(port) for port in ports.values() if port is not None)
    return Finding("port", "ok", f"{free} of {settings.host}, free")


def check_disk(settings: Settings) -> Finding:
    """Room for caches."""
    folder = settings.cache_dir
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free / 1e9
    if not os.access(folder, os.W_OK):
        return Finding("disk", "missing", f"{folder} cannot be written", "set MUSETALK_CACHE_DIR")
    if free < MIN_FREE_GB:
        return Finding("disk", "missing", f"{free:.1f} GB free in {folder}", "free some")
    return Finding("disk", "ok", f"{free:.0f} GB free in {folder}")


CHECKS: tuple[Callable[[Settings], Finding], ...] = (
    check_gpu,
    check_tensorrt,
    check_cpu,
    check_memory,
    check_ffmpeg,
    check_triton,
    check_repository,
    check_speech,
    check_port,
    check_disk,
)


def examine(settings: Settings) -> list[Finding]:
    """All checks at once, in order."""
    with ThreadPoolExecutor(len(CHECKS)) as pool:
        return list(pool.map(lambda check: check(settings), CHECKS))


def run(settings: Settings) -> int:
    """Print the findings; 0 when this machine can serve, else 1."""
    findings = examine(settings)
    styles = {"ok": "green", "note": "yellow", "missing": "bold red"}
    console = Console(highlight=False, soft_wrap=True)
    for finding in findings:
        line = Text(f"{finding.state.upper():<9}", styles[finding.state])
        line.append(f"{finding.name:<10}", "default").append(finding.text, "default")
        if finding.remedy:
            line.append(f"; {finding.remedy}", "default")
        console.print(line)
    return 1 if any(finding.state == "missing" for finding in findings) else 0

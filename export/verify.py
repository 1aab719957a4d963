"""``musetalk export verify``: what a server answers, against PyTorch, on real inputs."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from torch import nn

from export.build import modules
from export.checkpoint import Checkpoint
from export.gate import LABELS_DIFFERING, LIMITS, Result, compare
from export.manifest import Manifest, sha256
from export.modules import CROP
from orchestrator.errors import MediaError, RepositoryError
from orchestrator.inference import EmbeddedTriton, Inference, TritonClient
from orchestrator.inference.backends.musetalk_openvino.openvino_engine import resolve_precision
from orchestrator.speech.decode import decode_audio
from orchestrator.speech.mel import log_mel
from orchestrator.speech.windows import gather, step_count, windows

Array = npt.NDArray[Any]
SAMPLE = Path(__file__).parent / "samples" / "verify.npz"
TIMEOUT = 600.0
FPS = 25


@dataclass(frozen=True)
class Sample:
    """Real inputs.

    Attributes:
        crops: faces BGR, UINT8 [n,256,256,3].
        pcm: speech, INT16 [samples] at 16 kHz, long enough for n frames.
        audio: Whisper windows FP16 [n,50,384] of real speech, for a checkpoint without Whisper.
    """

    crops: npt.NDArray[np.uint8]
    pcm: npt.NDArray[np.int16]
    audio: npt.NDArray[np.float16]


async def load_sample(frames: Path | None, audio: Path | None) -> Sample:
    """The shipped sample, with the user's own picture or speech in its place.

    Raises:
        MediaError: the picture or the speech cannot be read.
    """
    with np.load(SAMPLE) as data:
        sample = Sample(data["crops"], data["pcm"], data["audio"])
    crops, pcm = sample.crops, sample.pcm
    if frames is not None:
        picture = cv2.imread(str(frames))
        if picture is None:
            raise MediaError(f"{frames}: not a readable picture")
        crop = cv2.resize(picture, (CROP, CROP), interpolation=cv2.INTER_LANCZOS4)
        crops = np.repeat(crop[None].astype(np.uint8), len(crops), axis=0)
    if audio is not None:
        pcm = await decode_audio(audio, max_seconds=30.0, max_bytes=200 << 20)
    return Sample(crops, pcm, sample.audio)


class _Reference:
    """PyTorch's own answers; one network in memory at a time."""

    def __init__(self, checkpoint: Checkpoint, decoder: str) -> None:
        self._make: dict[str, Callable[[], nn.Module]] = dict(modules(checkpoint, decoder))

    def has(self, name: str) -> bool:
        """Whether the checkpoint has weights for a model."""
        return name in self._make

    def __call__(self, name: str, *inputs: Array) -> Array:
        module = self._make[name]().eval()
        with torch.no_grad():
            output = module(*(torch.from_numpy(array) for array in inputs))
        del module
        gc.collect()
        return np.asarray(output.numpy())


def _windows(hidden: Array, pcm: Array, count: int) -> Array:
    """Audio windows FP16 [count,50,384], spread evenly over the speech."""
    indices = windows(len(hidden), len(pcm), FPS)
    chosen = np.linspace(0, len(indices) - 1, count).astype(int)
    return np.asarray(gather(hidden.astype(np.float16), indices[chosen]))


async def _compare_all(
    reference: _Reference, inference: Inference, sample: Sample, precision: str
) -> list[Result]:
    limits = LIMITS[precision]
    results = []
    count = len(sample.crops)

    async def served(model: str, output: str, **inputs: Array) -> Array:
        answer = await inference.infer(model, inputs, timeout=TIMEOUT)
        return answer[output]

    audio = served_audio = np.asarray(sample.audio)
    if reference.has("whisper_encoder"):
        mel = log_mel(sample.pcm)
        steps = step_count(len(sample.pcm))
        hidden = reference("whisper_encoder", mel[None])[0, :steps]
        own = await inference.encode_speech(mel, steps, timeout=TIMEOUT)
        results.append(compare("whisper_encoder", hidden, own, limits))
        audio = _windows(hidden, sample.pcm, count)
        served_audio = _windows(own, sample.pcm, count)
    latents = reference("vae_encoder", sample.crops)
    own_latents = await served("vae_encoder", "latents", crop=sample.crops)
    results.append(compare("vae_encoder", latents, own_latents, limits))
    pred = reference("unet", latents, audio)
    own_pred = await served("unet", "pred", latents=latents, audio=audio)
    results.append(compare("unet", pred, own_pred, limits))
    face = reference("vae_decoder", pred)
    own_face = await served("vae_decoder", "face", pred=pred)
    results.append(compare("vae_decoder", face, own_face, limits))
    if reference.has("face_parsing"):
        images = np.stack([cv2.resize(crop, (512, 512))[:, :, ::-1] for crop in sample.crops])
        labels = reference("face_parsing", images)
        own_labels = await served("face_parsing", "labels", image=images)
        differing = (labels != own_labels).astype(np.uint8)
        results.append(
            Result(
                "face_parsing",
                mean=float(differing.mean()),
                maximum=float(differing.max()),
                relative=float(differing.mean()),
                far=0.0,
                limit=f"differing pixels {LABELS_DIFFERING:.1%}",
                passed=float(differing.mean()) <= LABELS_DIFFERING,
            )
        )
    chain = await inference.lipsync(own_latents, served_audio, timeout=TIMEOUT)
    results.append(compare("chain", face, chain, limits))
    return results


async def verify(
    checkpoint: Path,
    repository: Path,
    triton: str | None = None,
    frames: Path | None = None,
    audio: Path | None = None,
) -> list[Result]:
    """Compare a repository, through a running Triton, with PyTorch in float32.

    Args:
        checkpoint: the folder it was built from.
        repository: a built repository; its manifest names precision and decoder.
        triton: gRPC address of a server of it; None starts the embedded one.
        frames: picture to use instead of the shipped one.
        audio: speech to use instead of the shipped one.

    Raises:
        RepositoryError: the repository was built from other weights.
    """
    source = Checkpoint.open(checkpoint)
    manifest = Manifest.read(repository)
    files = source.sources(fast=manifest.decoder == "fast")
    for path in files:
        name = str(path.relative_to(source.root))
        if manifest.sources.get(name) != sha256(path):
            raise RepositoryError(
                f"{repository} was built from another {name}", remedy="build it again"
            )
    sample = await load_sample(frames, audio)
    precision = resolve_precision(manifest.precision)
    reference = _Reference(source, manifest.decoder)
    async with contextlib.AsyncExitStack() as stack:
        address = triton
        if address is None:
            server = await stack.enter_async_context(EmbeddedTriton(repository))
            address = server.grpc_address
        client = TritonClient(address, default_timeout=TIMEOUT)
        stack.push_async_callback(client.close)
        return await _compare_all(reference, client, sample, precision)


def print_table(results: list[Result]) -> None:
    """Print the comparison, one line a model, never shortened to the terminal's width."""
    console = Console(highlight=False, soft_wrap=True)
    row = "{:16} {:>10} {:>10} {:>9} {:>11}  {:24} {}"
    titles = ("model", "mean error", "maximum", "rel. L2", "> 8 levels", "limit", "verdict")
    console.print(row.format(*titles))
    for result in results:
        console.print(
            row.format(
                result.name,
                f"{result.mean:.2g}",
                f"{result.maximum:.2g}",
                f"{result.relative:.2%}",
                f"{result.far:.3%}",
                result.limit,
                "[green]passed[/]" if result.passed else "[red]FAILED[/]",
            )
        )

"""``musetalk export verify``: what a server answers, against PyTorch, on real inputs."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from torch import nn

from export.build import modules
from export.checkpoint import Checkpoint
from export.gate import LABELS_DIFFERING, LIMITS, Result, compare
from export.manifest import Manifest, sha256
from export.sample import Sample, audio_windows, load_sample, parsing_images
from orchestrator.errors import RepositoryError, UsageError
from orchestrator.inference import EmbeddedTriton, Inference, TritonClient
from orchestrator.inference.backends.musetalk_openvino.openvino_engine import resolve_precision
from orchestrator.speech.mel import log_mel
from orchestrator.speech.windows import step_count

Array = npt.NDArray[Any]
TIMEOUT = 600.0


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
        audio = audio_windows(hidden, len(sample.pcm), count)
        served_audio = audio_windows(own, len(sample.pcm), count)
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
        images = parsing_images(sample.crops)
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
    precision: str | None = None,
) -> list[Result]:
    """Compare a repository, through a running Triton, with PyTorch in float32.

    Args:
        checkpoint: the folder it was built from.
        repository: a built repository; its manifest names precision and decoder.
        triton: gRPC address of a server of it; None starts the embedded one.
        frames: picture to use instead of the shipped one.
        audio: speech to use instead of the shipped one.
        precision: what that server computes in, where it does not say so itself.

    Raises:
        RepositoryError: the repository was built from other weights, a file in it is not what
            was built, or that server serves other weights.
        UsageError: the server resolves precision ``auto`` by itself, and nobody says to what.
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
    if triton is None and (damaged := manifest.damaged(repository)) is not None:
        # Its effect may be smaller than what a precision costs.
        raise RepositoryError(f"{damaged} is not the file that was built", remedy="build it again")
    sample = await load_sample(frames, audio)
    reference = _Reference(source, manifest.decoder)
    async with contextlib.AsyncExitStack() as stack:
        address = triton
        if address is None:
            server = await stack.enter_async_context(EmbeddedTriton(repository))
            address = server.grpc_address
        client = TritonClient(address, default_timeout=TIMEOUT)
        stack.push_async_callback(client.close)
        await _require_weights(client, manifest.weights_id, address)
        if precision is None:
            precision = await _served_precision(client, remote=triton is not None)
        return await _compare_all(reference, client, sample, precision)


async def _require_weights(client: Inference, wanted: str, address: str) -> None:
    """Refuse a server that says it serves other weights; one that says nothing is measured."""
    said = (await client.model_config("lipsync")).parameters.get("weights_id", wanted)
    if said != wanted:
        raise RepositoryError(
            f"Triton at {address} serves the weights {said}, the repository has {wanted}",
            remedy="name the repository of that server",
        )


async def _served_precision(client: Inference, *, remote: bool) -> str:
    """What the server's ``unet`` computes in, by its own config."""
    said = (await client.model_config("unet")).parameters.get("precision", "auto")
    if said != "auto":
        return said
    if remote:
        # The processor of that server decides, not this one's.
        raise UsageError(
            "that server resolves precision auto by itself",
            remedy="say what it computes in: --precision bf16 (a CPU with AMX) or fp32",
        )
    return resolve_precision(said)


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

"""Checkpoint to repository: every model built beside the target, published by one rename."""

from __future__ import annotations

import datetime
import gc
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from export.checkpoint import Checkpoint
from export.manifest import Manifest, ModelEntry, sha256, versions, weights_id
from export.model_config import MODELS, Model, cpu_config, lipsync_config, to_text
from export.modules import (
    FaceParsingModule,
    UnetModule,
    VaeDecoderModule,
    VaeEncoderModule,
    WhisperModule,
)
from export.onnx_export import EXTERNAL_DATA, example_inputs, export
from export.staging import staged
from orchestrator.errors import CheckpointError, RepositoryError, SetupError, UsageError

TARGETS = ("cpu",)
LATER_TARGETS = ("tensorrt", "onnxruntime")
"""Named in the design; asked for, they get an answer instead of a usage error."""
PRECISIONS = ("auto", "fp32", "bf16")
DECODERS = ("full", "fast")
_MARKS = ("manifest.json", "lipsync/config.pbtxt")
"""What a folder holds that may be replaced."""
Progress = Callable[[str], None]


def modules(checkpoint: Checkpoint, decoder: str) -> Iterator[tuple[str, Callable[[], nn.Module]]]:
    """The models this checkpoint has weights for, each built only when it is asked for."""
    if checkpoint.whisper is not None:
        yield "whisper_encoder", lambda: WhisperModule(checkpoint.whisper_encoder())
    # The encoder is always the checkpoint's own: the UNet was trained on its latents.
    yield "vae_encoder", lambda: VaeEncoderModule(checkpoint.autoencoder())
    yield "unet", lambda: UnetModule(checkpoint.unet())
    fast = decoder == "fast"
    yield "vae_decoder", lambda: VaeDecoderModule(checkpoint.autoencoder(fast=fast))
    if checkpoint.parsing is not None:
        yield "face_parsing", lambda: FaceParsingModule(checkpoint.face_parsing())


def rehearse(module: nn.Module, model: Model, root: Path) -> float:
    """Run a network on one frame before it is exported.

    Args:
        module: in eval mode.
        model: the interface that it must keep.
        root: the checkpoint, named in errors.

    Returns:
        Operations of one frame, a multiply and an add counted as two, in 10^9.

    Raises:
        CheckpointError: its configs describe a network with another interface.
    """
    counter = FlopCounterMode(display=False)
    try:
        with torch.no_grad(), counter:
            output = module(*example_inputs(model, batch=1))
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise CheckpointError(
            f"{root}: {model.name}: the network of the config files does not run: {reason}"
        ) from error
    wanted = model.outputs[0]
    shape = tuple(output.shape[1:])
    if len(shape) != len(wanted.dims) or any(
        dim not in (own, -1) for own, dim in zip(shape, wanted.dims, strict=True)
    ):
        raise CheckpointError(
            f"{root}: {model.name}: the network of the config files gives {list(shape)}, "
            f"MuseTalk's gives {list(wanted.dims)}"
        )
    return round(counter.get_total_flops() / 1e9, 3)


def _write_model(
    folder: Path, name: str, make: Callable[[], nn.Module], precision: str, operations: float
) -> ModelEntry:
    model = MODELS[name]
    version = folder / name / "1"
    version.mkdir(parents=True)
    exported = export(make(), model, version)
    (folder / name / "config.pbtxt").write_text(to_text(cpu_config(model, precision)))
    digest = sha256(version / "model.onnx")
    if (version / EXTERNAL_DATA).exists():
        digest += "+" + sha256(version / EXTERNAL_DATA)
    return ModelEntry(sha256=digest, parameters=exported.parameters, gflop=operations)


def build(
    checkpoint: Path,
    repository: Path,
    target: str = "cpu",
    precision: str = "auto",
    decoder: str = "full",
    progress: Progress = lambda _: None,
) -> Manifest:
    """Build a model repository; a failed build leaves the old one, or nothing, in its place.

    Args:
        checkpoint: a folder in MuseTalk's layout.
        repository: folder to write; an older repository there is replaced, anything else is
            left alone.
        target: ``cpu``.
        precision: ``auto``, ``fp32`` or ``bf16``, written into each model's config.
        decoder: ``full`` (the checkpoint's VAE) or ``fast`` (its ``taesd/``).
        progress: told each step, in words.

    Raises:
        CheckpointError: weights that do not fit, with file and key.
        RepositoryError: the folder is something else than a repository.
        SetupError: no space left, or a target that this version does not build yet.
        UsageError: an unknown target, precision or decoder.
    """
    if target in LATER_TARGETS:
        raise SetupError(
            f"target {target} is not available yet in this version", remedy="use --target cpu"
        )
    for value, allowed in ((target, TARGETS), (precision, PRECISIONS), (decoder, DECODERS)):
        if value not in allowed:
            raise UsageError(f"{value} is none of {', '.join(allowed)}")
    source = Checkpoint.open(checkpoint)
    ours = all((repository / name).is_file() for name in _MARKS)
    empty = repository.is_dir() and not any(repository.iterdir())
    if repository.exists() and not (ours or empty):
        raise RepositoryError(
            f"{repository} exists and is no model repository", remedy="name another folder"
        )
    available = list(modules(source, decoder))
    missing = [name for name in MODELS if name not in dict(available)]
    for name in missing:
        progress(f"{name}: left out, the checkpoint has no weights for it")
    # Everything is read once before the slow part: a misfit shows in seconds.
    operations = {}
    for name, make in available:
        progress(f"{name}: checking its weights")
        operations[name] = rehearse(make(), MODELS[name], source.root)
        gc.collect()
    files = source.sources(fast=decoder == "fast")
    hashes = {str(path.relative_to(source.root)): sha256(path) for path in files}
    with staged(repository) as work:
        entries = {}
        for number, (name, make) in enumerate(available, 1):
            progress(f"[{number}/{len(available)}] {name}: exporting")
            entries[name] = _write_model(work, name, make, precision, operations[name])
            gc.collect()  # the full UNet is gone before the decoder comes
        # Triton wants a version folder for an ensemble too; git keeps no empty one.
        ensemble = work / "lipsync" / "1"
        ensemble.mkdir(parents=True)
        (ensemble / ".gitkeep").touch()
        weights = weights_id(hashes, decoder)
        (work / "lipsync" / "config.pbtxt").write_text(to_text(lipsync_config(weights)))
        manifest = Manifest(
            created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            target=target,
            precision=precision,
            decoder=decoder,
            sources=hashes,
            missing=missing,
            versions=versions(),
            weights_id=weights,
            models=entries,
        )
        manifest.write(work)
    return manifest

"""Checkpoint to repository: every model built beside the target, published by one rename."""

from __future__ import annotations

import datetime
import gc
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from export.checkpoint import Checkpoint
from export.manifest import Manifest, ModelEntry, model_digest, sha256, versions, weights_id
from export.model_config import MODELS, SMALL_BYTES, Model, cpu_config, lipsync_config, to_text
from export.modules import (
    FaceParsingModule,
    UnetModule,
    VaeDecoderModule,
    VaeEncoderModule,
    WhisperModule,
)
from export.onnx_export import example_inputs, export
from export.staging import staged
from orchestrator.errors import CheckpointError, RepositoryError, UsageError

PRECISIONS = {
    "cpu": ("auto", "fp32", "bf16"),
    "tensorrt": ("auto", "fp16"),
    "onnxruntime": ("auto", "fp16"),
}
"""By target. ``auto`` is resolved where a CPU loads the model; on a GPU it is fp16."""
TARGETS = tuple(PRECISIONS)
DECODERS = ("full", "fast")
_MARKS = ("manifest.json", "lipsync/config.pbtxt")
"""What a folder holds that may be replaced."""
Progress = Callable[[str], None]


def _attention(query: torch.Size, key: torch.Size, value: torch.Size, *_: Any, **__: Any) -> int:
    """Two matrix products; a multiply and an add count as two."""
    return 2 * math.prod(query[:3]) * key[2] * (query[3] + value[3])


_ON_THE_CPU = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention}
"""PyTorch's counter knows attention by the names of the GPU's kernels alone."""


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
    counter = FlopCounterMode(display=False, custom_mapping=_ON_THE_CPU)
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


class Writer(Protocol):
    """Writes one model into a repository, in the way of one target."""

    def __call__(
        self, folder: Path, name: str, make: Callable[[], nn.Module], operations: float
    ) -> ModelEntry:
        """Make ``folder/name`` with config and version; ``operations`` are GFLOP a frame."""
        ...


def _write_model(
    folder: Path, name: str, make: Callable[[], nn.Module], precision: str, operations: float
) -> ModelEntry:
    model = MODELS[name]
    version = folder / name / "1"
    version.mkdir(parents=True)
    exported = export(make(), model, version)
    config = cpu_config(model, precision, small=exported.bytes <= SMALL_BYTES)
    (folder / name / "config.pbtxt").write_text(to_text(config))
    return ModelEntry(model_digest(version), exported.parameters, operations)


@dataclass(frozen=True)
class _Plan:
    """A build that can succeed, as far as the checkpoint goes."""

    available: list[tuple[str, Callable[[], nn.Module]]]
    missing: list[str]
    sources: dict[str, str]


def _open(checkpoint: Path, decoder: str) -> _Plan:
    source = Checkpoint.open(checkpoint)
    available = list(modules(source, decoder))
    files = source.sources(fast=decoder == "fast")
    return _Plan(
        available,
        [name for name in MODELS if name not in dict(available)],
        {str(path.relative_to(source.root)): sha256(path) for path in files},
    )


def _check_folder(repository: Path) -> bool:
    """Whether an older repository is there; anything else must not be replaced."""
    ours = all((repository / name).is_file() for name in _MARKS)
    empty = repository.is_dir() and not any(repository.iterdir())
    if repository.exists() and not (ours or empty):
        raise RepositoryError(
            f"{repository} exists and is no model repository", remedy="name another folder"
        )
    return ours


def check_options(target: str, precision: str, decoder: str) -> None:
    """Refuse what no build can do.

    Raises:
        UsageError: an unknown target, precision or decoder.
    """
    for value, allowed in ((target, TARGETS), (decoder, DECODERS)):
        if value not in allowed:
            raise UsageError(f"{value} is none of {', '.join(allowed)}")
    if precision not in PRECISIONS[target]:
        raise UsageError(f"{precision} is none of {', '.join(PRECISIONS[target])}")


def up_to_date(
    checkpoint: Path, repository: Path, target: str, precision: str, decoder: str
) -> Manifest | None:
    """The manifest of a repository that a build with these options would only make again.

    Whether its engines fit this GPU is for their own target to say.
    """
    if not _check_folder(repository):
        return None
    try:
        old = Manifest.read(repository)
    except RepositoryError:
        return None  # of another version, or damaged: it is built again
    if (old.target, old.precision, old.decoder) != (target, precision, decoder):
        return None
    if old.sources != _open(checkpoint, decoder).sources or old.damaged(repository):
        return None
    return old


def build(
    checkpoint: Path,
    repository: Path,
    target: str = "cpu",
    precision: str = "auto",
    decoder: str = "full",
    progress: Progress = lambda _: None,
    write: Writer | None = None,
) -> Manifest:
    """Build a model repository; a failed build leaves the old one, or nothing, in its place.

    Args:
        checkpoint: a folder in MuseTalk's layout.
        repository: folder to write; an older repository there is replaced, anything else is
            left alone.
        target: one of ``TARGETS``.
        precision: one of ``PRECISIONS`` of the target, written into each model's config.
        decoder: ``full`` (the checkpoint's VAE) or ``fast`` (its ``taesd/``).
        progress: told each step, in words.
        write: of a GPU target, see :mod:`export.gpu.build`; ``cpu`` needs none.

    Raises:
        CheckpointError: weights that do not fit, with file and key.
        RepositoryError: the folder is something else than a repository.
        SetupError: no space left.
        UsageError: an unknown target, precision or decoder.
    """
    check_options(target, precision, decoder)
    if write is None:

        def write(
            folder: Path, name: str, make: Callable[[], nn.Module], operations: float
        ) -> ModelEntry:
            return _write_model(folder, name, make, precision, operations)

    _check_folder(repository)
    plan = _open(checkpoint, decoder)
    for name in plan.missing:
        progress(f"{name}: left out, the checkpoint has no weights for it")
    # Everything is read once before the slow part: a misfit shows in seconds.
    operations = {}
    for name, make in plan.available:
        progress(f"{name}: checking its weights")
        operations[name] = rehearse(make(), MODELS[name], checkpoint)
        gc.collect()
    with staged(repository) as work:
        entries = {}
        for number, (name, make) in enumerate(plan.available, 1):
            progress(f"[{number}/{len(plan.available)}] {name}: exporting")
            entries[name] = write(work, name, make, operations[name])
            gc.collect()  # the full UNet is gone before the decoder comes
        # Triton wants a version folder for an ensemble too; git keeps no empty one.
        ensemble = work / "lipsync" / "1"
        ensemble.mkdir(parents=True)
        (ensemble / ".gitkeep").touch()
        weights = weights_id(plan.sources, decoder)
        (work / "lipsync" / "config.pbtxt").write_text(to_text(lipsync_config(weights)))
        manifest = Manifest(
            created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            target=target,
            precision=precision,
            decoder=decoder,
            sources=plan.sources,
            missing=plan.missing,
            versions=versions(),
            weights_id=weights,
            models=entries,
        )
        manifest.write(work)
    return manifest

"""``--plan``: what a GPU build would make, said without a GPU."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

from export.build import modules, rehearse
from export.checkpoint import Checkpoint
from export.gpu.profiles import BatchRange, batch_ranges
from export.model_config import MODELS, Model
from export.onnx_export import example_inputs

MIB = 1 << 20
_FULL_LAYERS = (nn.GroupNorm, nn.LayerNorm, nn.BatchNorm2d, nn.InstanceNorm2d)


@dataclass(frozen=True)
class PlannedModel:
    """One model of the repository to be.

    Attributes:
        model: its interface.
        ranges: profiles of its engine.
        precision: ``fp16`` with norms in float32, or ``fp32``.
        norms: layers that stay in float32 in any case.
        parameters: values of the network.
        weights: bytes of them on the GPU.
        working: bytes that the largest layer reads and writes for one row; what TensorRT
            allocates for a batch is that and the skip connections kept meanwhile.
        gflop: of one row.
    """

    model: Model
    ranges: tuple[BatchRange, ...]
    precision: str
    norms: int
    parameters: int
    weights: int
    working: int
    gflop: float


def _values(tensors: Any) -> int:
    if isinstance(tensors, torch.Tensor):
        return tensors.numel()
    if isinstance(tensors, (tuple, list)):
        return sum(_values(tensor) for tensor in tensors)
    return 0


def _layers(module: nn.Module, model: Model) -> tuple[int, list[nn.Module]]:
    """Values that the largest layer reads and writes for one row, and the layers that ran."""
    most = 0
    ran: list[nn.Module] = []

    def note(layer: nn.Module, inputs: Any, output: Any) -> None:
        nonlocal most
        ran.append(layer)
        most = max(most, _values(inputs) + _values(output))

    leaves = [layer for layer in module.modules() if not list(layer.children())]
    hooks = [layer.register_forward_hook(note) for layer in leaves]
    with torch.no_grad():
        module(*example_inputs(model, batch=1))
    for hook in hooks:
        hook.remove()
    # A table of embeddings is read without being called.
    tables = [layer for layer in leaves if isinstance(layer, nn.Embedding)]
    return most, list(dict.fromkeys([*ran, *tables]))


def _plan(model: Model, make: Callable[[], nn.Module], root: Path) -> PlannedModel:
    module = make().eval()
    size = 4 if model.precision == "fp32" else 2
    gflop = rehearse(module, model, root)
    working, layers = _layers(module, model)
    # Of an autoencoder only one half is in each model.
    parameters = sum(value.numel() for layer in layers for value in layer.parameters())
    return PlannedModel(
        model=model,
        ranges=batch_ranges(model.max_batch),
        precision=model.precision or "fp16",
        norms=sum(isinstance(layer, _FULL_LAYERS) for layer in layers),
        parameters=parameters,
        weights=parameters * size,
        working=working * size,
        gflop=gflop,
    )


def plan(checkpoint: Path, decoder: str) -> Iterator[PlannedModel]:
    """What would be built of a checkpoint, model by model.

    Raises:
        CheckpointError: weights that do not fit.
    """
    source = Checkpoint.open(checkpoint)
    for name, make in modules(source, decoder):
        yield _plan(MODELS[name], make, source.root)
        gc.collect()


def print_plan(planned: list[PlannedModel], console: Console) -> None:
    """The plan for a person: interfaces and profiles first, then sizes."""
    for one in planned:
        tensors = ", ".join(
            f"{tensor.name} {tensor.dtype.removeprefix('TYPE_')} {list(tensor.dims)}"
            for tensor in (*one.model.inputs, *one.model.outputs)
        )
        console.print(f"{one.model.name}: {tensors}", soft_wrap=True)
        profiles = ", ".join(f"{part} (tuned for {part.best})" for part in one.ranges)
        console.print(f"  profiles, in rows: {profiles}", soft_wrap=True)
        kept = f"; {one.norms} norms, softmax and edges in fp32" if one.precision == "fp16" else ""
        console.print(f"  precision: {one.precision}{kept}", soft_wrap=True)
    row = "{:16} {:>10} {:>12} {:>13} {:>11} {:>14}"
    console.print(
        row.format(
            "model", "parameters", "weights MiB", "working MiB*", "GFLOP/row", "GFLOP largest"
        ),
        soft_wrap=True,
    )
    for one in planned:
        rows = one.model.max_batch
        console.print(
            row.format(
                one.model.name,
                f"{one.parameters / 1e6:.1f} M",
                f"{one.weights / MIB:.0f}",
                f"{one.working * rows / MIB:.0f}",
                f"{one.gflop:.1f}",
                f"{one.gflop * rows:.0f}",
            ),
            soft_wrap=True,
        )
    weights = sum(one.weights for one in planned) / MIB
    console.print(f"weights together: {weights:.0f} MiB", soft_wrap=True)
    console.print("* read and written by the largest layer at the largest batch", soft_wrap=True)

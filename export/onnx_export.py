"""From a module to an ONNX file with a dynamic batch, its weights stored as small as they are."""

from __future__ import annotations

import contextlib
import gc
import io
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch
from torch import nn

from export.model_config import Model

OPSET = 18
EXTERNAL_DATA = "model.onnx.data"
_INLINE_LIMIT = 1_500_000_000
"""Bytes; one protobuf message must stay under 2 GiB."""
_MAX_BATCH = 63
"""diffusers takes another path from 64 on; a wider range is traced twice."""
_SMALL = 1024
"""Values; smaller constants are not worth a Cast node."""

_DTYPES = {
    "TYPE_FP32": torch.float32,
    "TYPE_FP16": torch.float16,
    "TYPE_UINT8": torch.uint8,
}


@dataclass(frozen=True)
class Exported:
    """What was written."""

    parameters: int
    bytes: int


def example_inputs(model: Model, batch: int) -> tuple[torch.Tensor, ...]:
    """Inputs of the right dtypes and shapes, for tracing; the values do not matter."""
    return tuple(
        torch.zeros((batch, *tensor.dims), dtype=_DTYPES[tensor.dtype]) for tensor in model.inputs
    )


def store_halves(model: ir.Model) -> None:
    """Store float32 weights as float16 plus a Cast wherever that loses nothing.

    A checkpoint saved in half precision then stays half as large; runtimes fold the Cast when
    they load. Weights that float16 cannot hold exactly stay as they are.
    """
    graph = model.graph
    first = graph[0]
    for name, value in list(graph.initializers.items()):
        constant = value.const_value
        if constant is None or constant.dtype != ir.DataType.FLOAT or constant.size < _SMALL:
            continue
        values = constant.numpy()
        with np.errstate(over="ignore"):
            halves = values.astype(np.float16)
        if not np.array_equal(halves.astype(np.float32), values):
            continue
        stored = ir.Value(
            name=f"{name}.fp16",
            shape=value.shape,
            type=ir.TensorType(ir.DataType.FLOAT16),
            const_value=ir.tensor(halves),
        )
        cast = ir.node("Cast", [stored], {"to": ir.DataType.FLOAT}, name=f"{name}.cast")
        graph.insert_before(first, cast)
        ir.convenience.replace_all_uses_with(value, cast.outputs[0])
        del graph.initializers[name]
        graph.register_initializer(stored)


@contextlib.contextmanager
def _quiet_and_quick() -> Iterator[None]:
    """Keep the exporter's chatter off the terminal, and the garbage collector away from it.

    It makes millions of small objects that live until its end; walking them over and over is a
    third of the time of an export.
    """
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    collecting = gc.isenabled()
    gc.disable()
    try:
        with (
            torch.no_grad(),
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        if collecting:
            gc.enable()


def _constants(model: ir.Model) -> list[ir.TensorProtocol]:
    values = (value.const_value for value in model.graph.initializers.values())
    return [value for value in values if value is not None]


def trace(module: nn.Module, model: Model) -> ir.Model:
    """The graph of a module with a dynamic batch, in float32.

    Args:
        module: in eval mode, float32, with the inputs and outputs of ``model``.
        model: names, dtypes and shapes.
    """
    batch = torch.export.Dim("batch", min=1, max=_MAX_BATCH)
    with _quiet_and_quick():
        program = torch.onnx.export(
            module.eval(),
            example_inputs(model, batch=2),
            dynamo=True,
            opset_version=OPSET,
            input_names=[tensor.name for tensor in model.inputs],
            output_names=[tensor.name for tensor in model.outputs],
            dynamic_shapes=tuple({0: batch} for _ in model.inputs),
            verbose=False,
        )
    assert program is not None
    graph = program.model
    for value in (*graph.graph.inputs, *graph.graph.outputs):
        if value.shape is None or isinstance(value.shape[0], int):
            raise RuntimeError(f"{model.name}: the batch of {value.name} became a constant")
    for node in graph.graph.all_nodes():
        node.metadata_props.clear()  # stack traces of this machine, larger than a small network
    return graph


def parameter_count(graph: ir.Model) -> int:
    """How many values the constants of a graph hold."""
    return sum(constant.size for constant in _constants(graph))


def save(graph: ir.Model, folder: Path) -> int:
    """Write ``model.onnx`` (and ``model.onnx.data`` when it is large); bytes written."""
    stored = sum(constant.nbytes for constant in _constants(graph))
    large = stored > _INLINE_LIMIT
    ir.save(graph, folder / "model.onnx", external_data=EXTERNAL_DATA if large else None)
    return sum(file.stat().st_size for file in folder.iterdir())


def export(module: nn.Module, model: Model, folder: Path) -> Exported:
    """Trace a module and write it, weights in half precision where that loses nothing.

    Args:
        module: as :func:`trace` takes it.
        model: names, dtypes and shapes.
        folder: an existing folder.
    """
    graph = trace(module, model)
    parameters = parameter_count(graph)
    store_halves(graph)
    return Exported(parameters, save(graph, folder))

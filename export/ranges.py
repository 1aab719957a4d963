"""What a graph computes on real inputs: its outputs, and the largest value of each tensor."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import onnxruntime

from export.onnx_export import save

Array = npt.NDArray[Any]
_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16)
_PROBE = ".largest"


@dataclass(frozen=True)
class Run:
    """One graph on captured inputs.

    Attributes:
        outputs: by name, batch first.
        largest: largest absolute value of each floating-point tensor, by name; infinite where
            it overflowed.
    """

    outputs: dict[str, Array]
    largest: dict[str, float]


def _attach(model: ir.Model) -> list[ir.Node]:
    """Add an output with the largest absolute value of every floating-point tensor."""
    graph = model.graph
    added: list[ir.Node] = []
    for node in list(graph):
        last = node
        for value in node.outputs:
            if value.dtype not in _FLOATS or not value.uses():
                continue
            wide = ir.node("Cast", [value], {"to": ir.DataType.FLOAT})
            size = ir.node("Abs", [wide.outputs[0]])
            most = ir.node("ReduceMax", [size.outputs[0]], {"keepdims": 0})
            probe = most.outputs[0]
            probe.name = f"{value.name}{_PROBE}"
            probe.shape, probe.type = ir.Shape([]), ir.TensorType(ir.DataType.FLOAT)
            for new in (wide, size, most):
                graph.insert_after(last, new)
                last = new
                added.append(new)
            graph.outputs.append(probe)
    return added


def _detach(model: ir.Model, added: list[ir.Node], outputs: int) -> None:
    while len(model.graph.outputs) > outputs:
        model.graph.outputs.pop()
    model.graph.remove(added, safe=True)


def observe(model: ir.Model, inputs: Mapping[str, Array], batch: int, folder: Path) -> Run:
    """Run a graph on the CPU, exactly as it is written: nothing fused, nothing left out.

    Args:
        model: float32, or after :func:`~export.half.to_half`.
        inputs: by name, batch first.
        batch: rows in one run; memory grows with it.
        folder: on a disk with room for the weights once more, for a moment.
    """
    outputs = [value.name for value in model.graph.outputs]
    added = _attach(model)
    options = onnxruntime.SessionOptions()
    # Optimisation would compute half tensors in float32 and hide their overflow.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    try:
        with tempfile.TemporaryDirectory(prefix=".observe.", dir=folder) as temporary:
            save(model, Path(temporary))
            session = onnxruntime.InferenceSession(
                Path(temporary) / "model.onnx", options, providers=["CPUExecutionProvider"]
            )
        names = [output.name for output in session.get_outputs()]
        made: dict[str, list[Array]] = {name: [] for name in names}
        rows = len(next(iter(inputs.values())))
        for start in range(0, rows, batch):
            piece = {name: array[start : start + batch] for name, array in inputs.items()}
            for name, array in zip(names, session.run(None, piece), strict=True):
                made[name].append(np.asarray(array))
    finally:
        _detach(model, added, len(outputs))
    return Run(
        outputs={name: np.concatenate(made[name]) for name in outputs if name is not None},
        largest={
            name.removesuffix(_PROBE): float(np.max(made[name]))
            for name in names
            if name.endswith(_PROBE)
        },
    )

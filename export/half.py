"""Half precision written into a graph, for runtimes that take precision from the graph alone.

TensorRT 11 is strongly typed: a float16 tensor is computed in float16. Norms, softmax and other
reductions stay in float32, their squares and exponentials overflow; so does whatever reaches, on
real inputs, a sixteenth of float16's range, and the arithmetic next to inputs and outputs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

LIMIT = 4096.0
"""Largest value, on captured inputs, of a tensor that may be float16: other inputs get 16 times
as far before they overflow (65504)."""

FULL_OPS = frozenset(
    {
        "BatchNormalization",
        "Exp",
        "GroupNormalization",
        "InstanceNormalization",
        "LayerNormalization",
        "Log",
        "LogSoftmax",
        "Pow",
        "Reciprocal",
        "ReduceL2",
        "ReduceMean",
        "ReduceSum",
        "Softmax",
        "Sqrt",
    }
)
"""Computed in float32 whatever their values are."""

_HEAVY = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_FIXED_INPUTS = {"Resize": (1, 2), "Upsample": (1,)}
"""Inputs that an operator wants in float32 whatever its data is."""


@dataclass(frozen=True)
class HalfReport:
    """What a conversion did.

    Attributes:
        half: nodes that compute in float16.
        kept: nodes left in float32, by reason: ``operator``, ``range``, ``edge``.
    """

    half: int
    kept: Mapping[str, int]

    def __str__(self) -> str:
        """One line for a person."""
        reasons = ", ".join(f"{count} by {reason}" for reason, count in sorted(self.kept.items()))
        return f"{self.half} nodes in float16, in float32 {reasons or 'none'}"


def is_float(value: ir.Value | None) -> bool:
    """Whether a value is a float32 tensor."""
    return value is not None and value.dtype == ir.DataType.FLOAT


def _edges(graph: ir.Graph) -> set[ir.Node]:
    """Nodes between an input and the first layers with weights, or after the last ones."""
    found: set[ir.Node] = set()
    starts: Iterable[ir.Value] = graph.inputs
    pending = [node for value in starts for node in value.consumers()]
    while pending:
        node = pending.pop()
        if node.op_type not in _HEAVY and node not in found:
            found.add(node)
            pending += [user for output in node.outputs for user in output.consumers()]
    ends = [value.producer() for value in graph.outputs]
    pending = [node for node in ends if node is not None]
    while pending:
        node = pending.pop()
        if node.op_type not in _HEAVY and node not in found:
            found.add(node)
            makers = [value.producer() for value in node.inputs if value is not None]
            pending += [maker for maker in makers if maker is not None]
    return found


def _largest(value: ir.Value, ranges: Mapping[str, float]) -> float:
    if value.const_value is not None:
        array = value.const_value.numpy()
        return float(np.abs(array).max()) if array.size else 0.0
    return ranges.get(value.name or "", 0.0)


def _reason(
    node: ir.Node, edges: set[ir.Node], ranges: Mapping[str, float], limit: float
) -> str | None:
    """Why a node stays in float32; None if it may be float16."""
    if node.op_type in FULL_OPS:
        return "operator"
    if node in edges:
        return "edge"
    values = [value for value in (*node.inputs, *node.outputs) if is_float(value)]
    if any(not _largest(value, ranges) <= limit for value in values if value is not None):
        return "range"
    return None


class _Converter:
    """Gives each node its inputs in the precision it computes in."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self._first = graph[0]
        self._made: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}

    def as_type(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        """The value in that type: itself, a converted constant, or behind one shared Cast."""
        if value.dtype == dtype:
            return value
        key = (value, dtype)
        if key not in self._made:
            constant = value.const_value
            self._made[key] = (
                self._cast(value, dtype) if constant is None else self._constant(value, constant)
            )
        return self._made[key]

    def _constant(self, value: ir.Value, constant: ir.TensorProtocol) -> ir.Value:
        stored = ir.Value(
            name=f"{value.name}.fp16",
            shape=value.shape,
            type=ir.TensorType(ir.DataType.FLOAT16),
            const_value=ir.tensor(constant.numpy().astype(np.float16)),
        )
        self._graph.register_initializer(stored)
        return stored

    def _cast(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        suffix = "fp16" if dtype == ir.DataType.FLOAT16 else "fp32"
        cast = ir.node("Cast", [value], {"to": dtype}, name=f"{value.name}.to_{suffix}")
        output = cast.outputs[0]
        output.name = f"{value.name}.{suffix}"
        output.shape, output.type = value.shape, ir.TensorType(dtype)
        producer = value.producer()
        if producer is None:
            self._graph.insert_before(self._first, cast)
        else:
            self._graph.insert_after(producer, cast)
        return output


def to_half(model: ir.Model, ranges: Mapping[str, float], limit: float = LIMIT) -> HalfReport:
    """Convert a float32 graph in place; inputs and outputs keep their types.

    Args:
        model: a traced graph, without functions or subgraphs.
        ranges: largest absolute value of each tensor on captured inputs, by name.
        limit: larger ones stay in float32. Not-a-number counts as larger.
    """
    graph = model.graph
    edges = _edges(graph)
    nodes = list(graph)
    for node in nodes:
        if any(
            isinstance(a, ir.Attr) and a.type == ir.AttributeType.GRAPH
            for a in node.attributes.values()
        ):
            raise RuntimeError(f"{node.name}: subgraphs are not converted")
    # Decided for all before anything changes: a decision reads the types of the neighbours.
    reasons = {
        node: _reason(node, edges, ranges, limit)
        for node in nodes
        if any(is_float(value) for value in (*node.inputs, *node.outputs))
    }
    keep = {value for value in graph.outputs if is_float(value)}
    converter = _Converter(graph)
    for node, reason in reasons.items():
        floats = [value for value in node.inputs if value is not None]
        halves = reason is None and not keep.intersection(node.outputs)
        wanted = ir.DataType.FLOAT16 if halves else ir.DataType.FLOAT
        fixed = _FIXED_INPUTS.get(node.op_type, ())
        for index, value in enumerate(node.inputs):
            if value is None or value not in floats or index in fixed:
                continue
            if value.dtype in (ir.DataType.FLOAT, ir.DataType.FLOAT16) and node.op_type != "Cast":
                node.replace_input_with(index, converter.as_type(value, wanted))
        if not halves:
            continue
        for output in node.outputs:
            if is_float(output):
                output.type = ir.TensorType(ir.DataType.FLOAT16)
                if node.op_type == "Cast":
                    node.attributes["to"] = ir.AttrInt64("to", int(ir.DataType.FLOAT16))
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            del graph.initializers[name]
    kept = Counter(reason for reason in reasons.values() if reason is not None)
    return HalfReport(sum(reason is None for reason in reasons.values()), dict(kept))

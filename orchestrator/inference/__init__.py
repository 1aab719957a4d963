"""Inference by Triton: an asynchronous client, and a server embedded when none is given."""

from orchestrator.inference.client import TritonClient
from orchestrator.inference.connection import connect, run_triton
from orchestrator.inference.protocol import Inference, ModelInfo, ModelStatistics, TensorInfo
from orchestrator.inference.server import EmbeddedTriton

__all__ = [
    "EmbeddedTriton",
    "Inference",
    "ModelInfo",
    "ModelStatistics",
    "TensorInfo",
    "TritonClient",
    "connect",
    "run_triton",
]

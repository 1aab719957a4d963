"""config.pbtxt of the GPU targets."""

from __future__ import annotations

from collections.abc import Sequence

from tritonclient.grpc import model_config_pb2 as pb

from export.gpu.profiles import BatchRange
from export.model_config import Model, base_config
from orchestrator.inference.protocol import WHISPER_STEPS

WARMUP = "warmup"
"""Folder in a model's own, where Triton looks for warm-up data."""
QUEUE_DELAY_US = 500
"""A burst of several sessions arrives within half a millisecond; a frame has 40."""


def _batching(config: pb.ModelConfig) -> None:
    # Neither priorities nor queue limits: design.md section 7 wants a burst test on the server
    # version in use before they are switched on.
    config.dynamic_batching.max_queue_delay_microseconds = QUEUE_DELAY_US


def _fixed_outputs(config: pb.ModelConfig) -> None:
    """These servers return all Whisper steps: they do not know the ``steps`` parameter."""
    for output in config.output:
        if output.dims[0] == -1:
            output.dims[0] = WHISPER_STEPS


def _warm_up(config: pb.ModelConfig, model: Model, ranges: Sequence[BatchRange]) -> None:
    for one in ranges:
        warmup = config.model_warmup.add(name=f"batch {one.best}", batch_size=one.best)
        for tensor in model.inputs:
            value = warmup.inputs[tensor.name]
            value.data_type = pb.DataType.Value(tensor.dtype)
            value.dims.extend(tensor.dims)
            value.input_data_file = tensor.name


def tensorrt_config(model: Model, ranges: Sequence[BatchRange], key: str) -> pb.ModelConfig:
    """Config of a model that has an engine.

    Args:
        model: the interface.
        ranges: the engine's profiles, all of which the instance uses.
        key: artefact key, kept where a client can read it.
    """
    config = base_config(model)
    config.platform = "tensorrt_plan"
    config.default_model_filename = "model.plan"
    _fixed_outputs(config)
    _batching(config)
    for one in ranges:
        if one.best > 1:
            config.dynamic_batching.preferred_batch_size.append(one.best)
    group = config.instance_group.add(kind=pb.ModelInstanceGroup.KIND_GPU, count=1)
    group.profile.extend(str(number) for number in range(len(ranges)))
    cuda = config.optimization.cuda
    cuda.graphs = True
    cuda.output_copy_stream = True
    for one in ranges:
        graph = cuda.graph_spec.add(batch_size=one.best)
        for tensor in model.inputs:
            graph.input[tensor.name].dim.extend(tensor.dims)
    _warm_up(config, model, ranges)
    config.parameters["precision"].string_value = model.precision or "fp16"
    config.parameters["engine_key"].string_value = key
    # Otherwise each profile's context holds memory for the largest batch of all.
    config.parameters["execution_context_allocation_strategy"].string_value = "ON_PROFILE_CHANGE"
    return config


def onnxruntime_config(model: Model, ranges: Sequence[BatchRange]) -> pb.ModelConfig:
    """Config of a model that ONNX Runtime serves with CUDA.

    Args:
        model: the interface.
        ranges: sizes to warm up; any size is served.
    """
    config = base_config(model)
    config.platform = "onnxruntime_onnx"
    config.default_model_filename = "model.onnx"
    _fixed_outputs(config)
    _batching(config)
    config.instance_group.add(kind=pb.ModelInstanceGroup.KIND_GPU, count=1)
    _warm_up(config, model, ranges)
    config.parameters["precision"].string_value = model.precision or "fp16"
    return config

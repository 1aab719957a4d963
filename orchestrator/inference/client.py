"""Triton over gRPC, behind the :class:`~orchestrator.inference.protocol.Inference` calls."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from tritonclient.grpc import model_config_pb2
from tritonclient.grpc.aio import InferenceServerClient, InferInput
from tritonclient.utils import (
    InferenceServerException,
    np_to_triton_dtype,
    triton_to_np_dtype,
)

from orchestrator.errors import (
    BadInputError,
    DeadlineError,
    InferenceError,
    ModelMissingError,
    MuseTalkError,
    SetupError,
    UnavailableError,
)
from orchestrator.inference.protocol import (
    F16,
    F32,
    U8,
    WHISPER_STEPS,
    Array,
    ModelInfo,
    ModelStatistics,
    TensorInfo,
)
from orchestrator.inference.replicas import (
    CHANNEL_ARGUMENTS,
    PAUSES,
    may_be_many,
    servers_fault,
)
from orchestrator.inference.rpc_errors import stalled_model, translate
from orchestrator.tracing import span, trace_headers

T = TypeVar("T")

PROBE_SECONDS = 5.0
GRACE_SECONDS = 1.0


class TritonClient:
    """One channel to one Triton address; many calls at a time may share it.

    An address may stand for many servers: calls take them in turn, and one that a server could
    not answer because it is away or stopping goes to another, within its deadline.

    Attributes:
        resent: calls that were sent again, by reason.
    """

    def __init__(
        self,
        address: str,
        *,
        default_timeout: float = 30.0,
        why_down: Callable[[], MuseTalkError | None] | None = None,
        on_stall: Callable[[str], None] | None = None,
        tls_ca: Path | None = None,
        token: str | None = None,
    ) -> None:
        """Prepare a client; it connects with its first call.

        Args:
            address: ``host:port`` of Triton's gRPC service, or a gRPC name (``dns:///...``,
                ``ipv4:one:8001,other:8001``).
            default_timeout: seconds, for calls that give none.
            why_down: asked when nobody answers; a better explanation than "unavailable".
            on_stall: told the model whose process stood still, after which the server's answers
                cannot be trusted.
            tls_ca: certificates (PEM) of whom to trust; turns TLS on.
            token: sent with each call, for a proxy before Triton that asks for one.

        Raises:
            SetupError: the certificates cannot be read.
            UnavailableError: the address cannot be understood.
        """
        self.address = address
        self._default_timeout = default_timeout
        self._why_down = why_down
        self._on_stall = on_stall
        self._headers = {"authorization": f"Bearer {token}"} if token else {}
        try:
            self._client = InferenceServerClient(
                address,
                ssl=tls_ca is not None,
                root_certificates=str(tls_ca) if tls_ca is not None else None,
                channel_args=CHANNEL_ARGUMENTS,
            )
        except OSError as error:
            raise SetupError(
                f"{tls_ca} cannot be read: {error.strerror}",
                remedy="MUSETALK_TRITON_TLS_CA names a PEM file",
            ) from error
        self._pauses = PAUSES if may_be_many(address) else ()
        self._closed = False
        self.resent: Counter[str] = Counter()

    @property
    def state(self) -> str:
        """``idle``, ``connecting``, ``ready``, ``transient_failure`` or ``shutdown``."""
        if self._closed:
            return "shutdown"
        # tritonclient keeps it to itself; a channel is its only way to the servers.
        return str(self._client._channel.get_state().name).lower()

    async def encode_speech(self, mel: F32, steps: int, *, timeout: float | None = None) -> F16:
        """Encode 30 s of speech; see :class:`Inference`."""
        if not 1 <= steps <= WHISPER_STEPS:
            raise BadInputError(f"whisper_encoder: steps is {steps}, not 1 to {WHISPER_STEPS}")
        batch = {"mel": np.ascontiguousarray(mel, np.float32)[np.newaxis]}
        result = await self.infer(
            "whisper_encoder", batch, timeout=timeout, parameters={"steps": steps}
        )
        # Backends other than ours do not know the parameter and send all steps.
        return _output(result, "whisper_encoder", "hidden_states")[0, :steps]

    async def encode_crops(self, crops: U8, *, timeout: float | None = None) -> F16:
        """Encode face crops; see :class:`Inference`."""
        result = await self.infer("vae_encoder", {"crop": crops}, timeout=timeout)
        return _output(result, "vae_encoder", "latents")

    async def lipsync(self, latents: F16, audio: F16, *, timeout: float | None = None) -> U8:
        """Make the faces of one batch of frames; see :class:`Inference`."""
        inputs = {"latents": latents, "audio": audio}
        result = await self.infer("lipsync", inputs, timeout=timeout)
        return _output(result, "lipsync", "face")

    async def parse_faces(self, images: U8, *, timeout: float | None = None) -> U8:
        """Label the pixels of faces; see :class:`Inference`."""
        result = await self.infer("face_parsing", {"image": images}, timeout=timeout)
        return _output(result, "face_parsing", "labels")

    async def infer(
        self,
        model: str,
        inputs: Mapping[str, Array],
        *,
        timeout: float | None = None,
        parameters: Mapping[str, str | int | bool] | None = None,
    ) -> dict[str, Array]:
        """Call any model; see :class:`Inference`."""
        seconds = self._default_timeout if timeout is None else timeout
        if seconds <= 0:
            raise DeadlineError(f"{model}: the deadline had passed before the call")
        tensors = [_tensor(model, name, array) for name, array in inputs.items()]
        with span("triton", model=model):
            result = await self._call(
                lambda left: self._client.infer(
                    model,
                    tensors,
                    parameters=dict(parameters) if parameters else None,
                    headers=(trace_headers() | self._headers) or None,
                    client_timeout=left,
                ),
                seconds,
                model,
            )
        names = [output.name for output in result.get_response().outputs]
        return {name: result.as_numpy(name) for name in names}

    async def has_model(self, name: str) -> bool:
        """Whether a model is loaded and ready."""
        try:
            return bool(
                await self._call(
                    lambda left: self._client.is_model_ready(
                        name, headers=self._headers or None, client_timeout=left
                    ),
                    PROBE_SECONDS,
                    name,
                )
            )
        except ModelMissingError:
            return False

    async def model_config(self, name: str) -> ModelInfo:
        """What the server says of a model; see :class:`Inference`."""
        response = await self._call(
            lambda left: self._client.get_model_config(
                name, headers=self._headers or None, client_timeout=left
            ),
            PROBE_SECONDS,
            name,
        )
        return _model_info(response.config)

    async def statistics(self, name: str) -> ModelStatistics:
        """How often a model ran, and how many rows it computed.

        Raises:
            ModelMissingError: the server has no such model.
        """
        response = await self._call(
            lambda left: self._client.get_inference_statistics(
                name, headers=self._headers or None, client_timeout=left
            ),
            PROBE_SECONDS,
            name,
        )
        entry = response.model_stats[0]
        return ModelStatistics(
            rows=entry.inference_count,
            executions=entry.execution_count,
            queue_seconds=entry.inference_stats.queue.ns / 1e9,
            compute_seconds=entry.inference_stats.compute_infer.ns / 1e9,
            requests=entry.inference_stats.success.count,
        )

    async def server_name(self) -> str:
        """The name that the server gives itself (``--id``)."""
        return str(
            (
                await self._call(
                    lambda left: self._client.get_server_metadata(
                        headers=self._headers or None, client_timeout=left
                    ),
                    PROBE_SECONDS,
                    "",
                )
            ).name
        )

    async def ready(self) -> bool:
        """Whether the server answers and all its models are loaded; never raises."""
        try:
            return bool(
                await self._call(
                    lambda left: self._client.is_server_ready(
                        headers=self._headers or None, client_timeout=left
                    ),
                    PROBE_SECONDS,
                    "",
                )
            )
        except MuseTalkError:
            return False

    async def close(self) -> None:
        """Close the channel; calls under way end as cancelled."""
        self._closed = True
        await self._client.close()

    async def __aenter__(self) -> TritonClient:
        """Use as ``async with``."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close."""
        await self.close()

    async def _call(self, send: Callable[[float], Awaitable[T]], seconds: float, model: str) -> T:
        """Await one RPC; its errors become ours.

        The deadline travels with the RPC, so that the server knows it; the one here is for a
        transport that never reports back.

        Args:
            send: makes the RPC with the seconds that are left.
            seconds: for all attempts together.
            model: named in errors.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        pauses = iter(self._pauses)
        while True:
            left = end - loop.time()
            try:
                return await asyncio.wait_for(send(left), left + GRACE_SECONDS)
            except (InferenceServerException, asyncio.TimeoutError) as error:
                if self._on_stall is not None and (stalled := stalled_model(error)):
                    self._on_stall(stalled)
                fault = None if self._closed else servers_fault(error)
                pause = next(pauses, None) if fault else None
                if fault is None or pause is None or loop.time() + pause >= end:
                    raise self._explained(error, model) from error
                self.resent[fault] += 1
            await asyncio.sleep(pause)

    def _explained(self, error: BaseException, model: str) -> MuseTalkError:
        """Our error for one of the transport's."""
        translated = translate(error, model=model, address=self.address)
        if isinstance(translated, UnavailableError) and self._why_down is not None:
            return self._why_down() or translated
        return translated


def _tensor(model: str, name: str, array: Array) -> InferInput:
    """An input of a request."""
    dtype = np_to_triton_dtype(array.dtype)
    if dtype is None:
        raise BadInputError(f"{model}: input {name} has dtype {array.dtype}, which no model takes")
    tensor = InferInput(name, list(array.shape), dtype)
    tensor.set_data_from_numpy(np.ascontiguousarray(array))
    return tensor


def _output(result: Mapping[str, Array], model: str, name: str) -> Array:
    """An output that the model must have."""
    try:
        return result[name]
    except KeyError as error:
        raise InferenceError(f"{model}: the answer has no output {name}") from error


def _model_info(config: Any) -> ModelInfo:
    """Our view of Triton's ModelConfig message."""
    return ModelInfo(
        name=config.name,
        platform=config.backend or config.platform,
        max_batch=config.max_batch_size,
        inputs=tuple(_tensor_info(tensor) for tensor in config.input),
        outputs=tuple(_tensor_info(tensor) for tensor in config.output),
        parameters={key: value.string_value for key, value in config.parameters.items()},
    )


def _tensor_info(tensor: Any) -> TensorInfo:
    """Our view of Triton's ModelInput and ModelOutput messages."""
    name = model_config_pb2.DataType.Name(tensor.data_type).removeprefix("TYPE_")
    dtype = np.dtype(triton_to_np_dtype("BYTES" if name == "STRING" else name))
    return TensorInfo(tensor.name, dtype, tuple(tensor.dims))

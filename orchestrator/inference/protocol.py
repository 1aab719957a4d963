"""What the rest of the service knows of inference: typed calls on numpy arrays.

Names, dtypes and shapes are those of the models in a repository; a batch is always the first
axis. Only this package knows that Triton answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]
F16: TypeAlias = npt.NDArray[np.float16]
F32: TypeAlias = npt.NDArray[np.float32]
U8: TypeAlias = npt.NDArray[np.uint8]

WHISPER_STEPS = 1500
"""Steps (20 ms each) that the Whisper encoder makes of its 30 seconds."""


@dataclass(frozen=True)
class TensorInfo:
    """One input or output of a model."""

    name: str
    dtype: np.dtype[Any]
    dims: tuple[int, ...]
    """Without the batch axis; -1 is free."""


@dataclass(frozen=True)
class ModelInfo:
    """What a server says of one of its models."""

    name: str
    platform: str
    """Backend or platform that runs it."""
    max_batch: int
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    parameters: Mapping[str, str]


@dataclass(frozen=True)
class ModelStatistics:
    """What a model has done since it was loaded."""

    rows: int
    """Rows of all batches."""
    executions: int
    """Batches; ``rows / executions`` is the mean batch."""
    queue_seconds: float
    """Time that requests waited, summed over them."""
    compute_seconds: float
    """Time in the backend, summed over the requests of each batch."""
    requests: int
    """Requests that succeeded; several may share a batch."""


class Inference(Protocol):
    """The models of one repository.

    Every call takes ``timeout`` in seconds (None: the client's default) and raises
    :class:`~orchestrator.errors.InferenceError` or one of its subclasses: UnavailableError,
    QueueFullError and DeadlineError may be tried again, BadInputError and ModelMissingError
    not. An embedded server that is gone for good answers with ServerDiedError. Cancelling the
    task cancels the request on the server. Returned arrays may be read-only.
    """

    async def encode_speech(self, mel: F32, steps: int, *, timeout: float | None = None) -> F16:
        """Encode 30 s of speech by ``whisper_encoder``.

        Args:
            mel: log-mel spectrogram, FP32 [80,3000], padded to 30 s.
            steps: how many of the 1500 steps to return, 1 to 1500.
            timeout: seconds.

        Returns:
            Hidden states FP16 [steps,5,384].
        """
        ...

    async def encode_crops(self, crops: U8, *, timeout: float | None = None) -> F16:
        """Encode face crops by ``vae_encoder``.

        Args:
            crops: BGR, UINT8 [n,256,256,3], n at most the model's largest batch.
            timeout: seconds.

        Returns:
            Masked and reference latents FP16 [n,8,32,32].
        """
        ...

    async def lipsync(self, latents: F16, audio: F16, *, timeout: float | None = None) -> U8:
        """Make the faces of one batch of frames by the ensemble ``lipsync``.

        Args:
            latents: FP16 [n,8,32,32], n at most the model's largest batch.
            audio: FP16 [n,50,384] without positional encoding.
            timeout: seconds.

        Returns:
            Faces BGR, UINT8 [n,256,256,3].
        """
        ...

    async def parse_faces(self, images: U8, *, timeout: float | None = None) -> U8:
        """Label the pixels of faces by ``face_parsing``.

        Args:
            images: RGB, UINT8 [n,512,512,3].
            timeout: seconds.

        Returns:
            Classes UINT8 [n,512,512].
        """
        ...

    async def infer(
        self,
        model: str,
        inputs: Mapping[str, Array],
        *,
        timeout: float | None = None,
        parameters: Mapping[str, str | int | bool] | None = None,
    ) -> dict[str, Array]:
        """Call any model.

        Args:
            model: its name.
            inputs: arrays by input name, batch first.
            timeout: seconds.
            parameters: request parameters.

        Returns:
            Arrays by output name.
        """
        ...

    async def has_model(self, name: str) -> bool:
        """Whether a model is loaded and ready."""
        ...

    async def model_config(self, name: str) -> ModelInfo:
        """What the server says of a model; ModelMissingError when it has none of that name."""
        ...

    async def ready(self) -> bool:
        """Whether the server answers and all its models are loaded; never raises."""
        ...

    async def close(self) -> None:
        """Close the connection."""
        ...

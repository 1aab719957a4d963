"""Triton for work that nobody watches: it waits for its turn behind live sessions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from orchestrator.inference.protocol import F16, F32, U8, Array, Inference, ModelInfo
from orchestrator.inference.schedule import Scheduler

OWNER: Final = "offline"
"""All of it counts as one session, so that Triton never has a long row of it before live work."""


class BackgroundInference:
    """An ``Inference`` whose requests have no deadline.

    Args:
        inference: Triton.
        scheduler: orders the requests of this process.
    """

    def __init__(self, inference: Inference, scheduler: Scheduler) -> None:
        self._inference = inference
        self._scheduler = scheduler

    async def encode_speech(self, mel: F32, steps: int, *, timeout: float | None = None) -> F16:
        """See ``Inference``."""
        return await self._scheduler.run(
            lambda: self._inference.encode_speech(mel, steps, timeout=timeout),
            model="whisper_encoder",
            owner=OWNER,
        )

    async def encode_crops(self, crops: U8, *, timeout: float | None = None) -> F16:
        """See ``Inference``; an avatar's preparation gives way to those who are spoken to."""
        await self._scheduler.lull()
        return await self._scheduler.run(
            lambda: self._inference.encode_crops(crops, timeout=timeout),
            model="vae_encoder",
            owner=OWNER,
        )

    async def lipsync(self, latents: F16, audio: F16, *, timeout: float | None = None) -> U8:
        """See ``Inference``."""
        return await self._scheduler.run(
            lambda: self._inference.lipsync(latents, audio, timeout=timeout),
            model="lipsync",
            owner=OWNER,
        )

    async def parse_faces(self, images: U8, *, timeout: float | None = None) -> U8:
        """See ``Inference``."""
        return await self._scheduler.run(
            lambda: self._inference.parse_faces(images, timeout=timeout),
            model="face_parsing",
            owner=OWNER,
        )

    async def infer(
        self,
        model: str,
        inputs: Mapping[str, Array],
        *,
        timeout: float | None = None,
        parameters: Mapping[str, str | int | bool] | None = None,
    ) -> dict[str, Array]:
        """See ``Inference``."""
        return await self._scheduler.run(
            lambda: self._inference.infer(model, inputs, timeout=timeout, parameters=parameters),
            model=model,
            owner=OWNER,
        )

    async def has_model(self, name: str) -> bool:
        """See ``Inference``."""
        return await self._inference.has_model(name)

    async def model_config(self, name: str) -> ModelInfo:
        """See ``Inference``."""
        return await self._inference.model_config(name)

    async def ready(self) -> bool:
        """See ``Inference``."""
        return await self._inference.ready()

    async def close(self) -> None:
        """Nothing: the connection belongs to who made it."""

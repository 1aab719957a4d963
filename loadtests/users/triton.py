"""A user of Triton itself: one talking avatar's chunks over gRPC, paced as they are played."""

from __future__ import annotations

import os
import time
from itertools import count
from typing import Any, ClassVar

import numpy as np
import tritonclient.grpc as triton
from locust import User, task

from loadtests.figures import Turn
from loadtests.pace import Pace
from loadtests.users.record import RECORD

FPS = 25
CHUNK = 12
"""Frames a request: 0.48 s of video."""
PERIOD = CHUNK / FPS
MAX_BATCH = 8


class TritonUser(User):
    """One avatar that never stops talking, without the service."""

    numbers: ClassVar = count()

    def on_start(self) -> None:
        """Connect, and prepare a chunk of inputs."""
        self.number = next(self.numbers)
        self.client = triton.InferenceServerClient(os.environ["MUSETALK_LOAD_TRITON"])
        rng = np.random.default_rng(self.number)
        self.parts = [self._inputs(rng, size) for size in (MAX_BATCH, CHUNK - MAX_BATCH)]
        self.pace = Pace(time.perf_counter(), CHUNK, FPS)

    def _inputs(self, rng: np.random.Generator, size: int) -> list[Any]:
        inputs = []
        for name, shape in (("latents", (8, 32, 32)), ("audio", (50, 384))):
            tensor = triton.InferInput(name, [size, *shape], "FP16")
            tensor.set_data_from_numpy(rng.standard_normal((size, *shape)).astype(np.float16))
            inputs.append(tensor)
        return inputs

    def on_stop(self) -> None:
        """Disconnect."""
        self.client.close()

    @task
    def speak(self) -> None:
        """One chunk, then wait until it would have been played."""
        start = time.perf_counter()
        error = ""
        try:
            for inputs in self.parts:
                self.client.infer("lipsync", inputs, client_timeout=30)
        except triton.InferenceServerException as failure:
            error = str(failure)
        now = time.perf_counter()
        frames, late = self.pace.answered(now)
        late = frames if error else late
        figures = {"lipsync": now - start, "real_time_factor": (now - start) / PERIOD}
        RECORD.add(
            self.environment,
            Turn(time.time(), self.number, "triton", "chunk", frames, late, figures, error=error),
        )
        time.sleep(max(0.0, self.pace.due - now))

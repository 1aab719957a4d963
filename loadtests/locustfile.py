"""Locust users of a Triton server: each plays one talking avatar, chunk after chunk, in real time.

Run by ``make load`` (loadtests/load.py). A user asks for the faces of half a second of speech,
waits until that half second would have been played, and asks again. Figures: ``lipsync`` is the
time of a chunk, ``late`` counts the chunks that took longer than they last.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from typing import Any

import grpc.experimental.gevent as grpc_gevent

grpc_gevent.init_gevent()

import numpy as np  # noqa: E402 -- gRPC has to be made cooperative first
import tritonclient.grpc as triton  # noqa: E402
from locust import User, events, task  # noqa: E402
from locust.env import Environment  # noqa: E402

FPS = 25
CHUNK = 12
"""Frames a request: 0.48 s of video."""
PERIOD = CHUNK / FPS
MAX_BATCH = 8
ON_TIME = float(os.environ.get("MUSETALK_LOAD_ON_TIME", "0.99"))
"""Share of chunks that must be on time for the run to pass."""


@contextlib.contextmanager
def measured(environment: Environment, name: str) -> Iterator[None]:
    """Report one request to Locust."""
    start = time.perf_counter()
    failure: Exception | None = None
    try:
        yield
    except triton.InferenceServerException as error:
        failure = error
    finally:
        environment.events.request.fire(  # type: ignore[no-untyped-call]  # Locust's hook
            request_type="gRPC",
            name=name,
            response_time=(time.perf_counter() - start) * 1000,
            response_length=0,
            exception=failure,
        )


class Talker(User):
    """One avatar that never stops talking."""

    def on_start(self) -> None:
        """Connect, and prepare a chunk of inputs."""
        self.client = triton.InferenceServerClient(self.host)
        rng = np.random.default_rng()
        self.parts = [
            self._inputs(rng, size) for size in (MAX_BATCH, CHUNK - MAX_BATCH) if size > 0
        ]
        self.due = time.perf_counter()

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
        with measured(self.environment, "lipsync"):
            for inputs in self.parts:
                self.client.infer("lipsync", inputs, client_timeout=30)
        seconds = time.perf_counter() - start
        if seconds > PERIOD:
            self.environment.events.request.fire(
                request_type="gRPC",
                name="late",
                response_time=(seconds - PERIOD) * 1000,
                response_length=0,
                exception=None,
            )
        self.due = max(self.due + PERIOD, time.perf_counter())
        time.sleep(max(0.0, self.due - time.perf_counter()))


@events.quitting.add_listener  # type: ignore[untyped-decorator]  # Locust's hook
def judge(environment: Environment, **_: object) -> None:
    """Fail the run when a request failed or too many chunks were late."""
    chunks = environment.stats.get("lipsync", "gRPC")
    late = environment.stats.get("late", "gRPC").num_requests
    on_time = 1 - late / chunks.num_requests if chunks.num_requests else 0.0
    print(f"chunks on time: {on_time:.1%} of {chunks.num_requests}")  # noqa: T201 -- its report
    failed = chunks.num_failures > 0 or on_time < ON_TIME
    environment.process_exit_code = 1 if failed else 0

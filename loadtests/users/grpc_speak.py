"""A caller of gRPC ``Speak``: a text, whose video comes in fragments while it is made."""

from __future__ import annotations

import os
import time
from itertools import count
from typing import ClassVar

import grpc
from locust import User, between, task

from loadtests.figures import Turn
from loadtests.users.record import RECORD
from orchestrator.api.musetalk.v1 import musetalk_pb2 as pb
from orchestrator.api.musetalk.v1 import musetalk_pb2_grpc

TEXT = "This is a video that somebody waits for. It has two sentences."


class GrpcUser(User):
    """One caller."""

    numbers: ClassVar = count()
    wait_time = between(0.5, 2.0)

    def on_start(self) -> None:
        """Connect."""
        self.number = next(self.numbers)
        self.channel = grpc.insecure_channel(os.environ["MUSETALK_LOAD_GRPC"])
        self.stub = musetalk_pb2_grpc.MuseTalkStub(self.channel)  # type: ignore[no-untyped-call]

    def on_stop(self) -> None:
        """Disconnect."""
        self.channel.close()

    @task
    def speak(self) -> None:
        """One text."""
        began = time.perf_counter()
        figures: dict[str, float] = {}
        error, refused = "", False
        try:
            for part in self.stub.Speak(pb.SpeakRequest(text=TEXT), timeout=120):
                if part.WhichOneof("part") == "finished":
                    figures["real_time_factor"] = part.finished.real_time_factor
                elif part.fragment.duration:
                    figures.setdefault("first_frame", time.perf_counter() - began)
            figures["render"] = time.perf_counter() - began
        except grpc.RpcError as failure:
            refused = failure.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            error = f"{failure.code()}: {failure.details()}"
        RECORD.add(
            self.environment,
            Turn(
                *(time.time(), self.number, "grpc", "Speak"),
                figures=figures,
                error=error,
                refused=refused,
            ),
        )

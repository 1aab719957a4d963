"""Callers of the HTTP interface: videos that one waits for, and video jobs."""

from __future__ import annotations

import os
import time
from itertools import count
from typing import ClassVar

import requests
from locust import User, between, task

from loadtests.figures import Turn
from loadtests.users.record import RECORD

TEXT = "This is a video that somebody waits for. It has two sentences."
_REFUSED = 429
_JOB_SECONDS = 180.0
_POLL_SECONDS = 0.25


class _HttpCaller(User):
    """A session of requests, and how one request is reported."""

    abstract = True
    kind = "http"
    wait_time = between(0.5, 2.0)

    def on_start(self) -> None:
        """Connect."""
        self.number = next(self.numbers)
        self.url = os.environ["MUSETALK_LOAD_URL"]
        self.http = requests.Session()

    numbers: ClassVar = count()

    def on_stop(self) -> None:
        """Disconnect."""
        self.http.close()

    @task
    def once(self) -> None:
        """One request, reported whatever comes of it."""
        figures: dict[str, float] = {}
        error, refused = "", False
        try:
            self.ask(figures)
        except (requests.RequestException, TimeoutError, ValueError) as failure:
            answer = getattr(failure, "response", None)
            refused = answer is not None and answer.status_code == _REFUSED
            error = str(failure)
        RECORD.add(
            self.environment,
            Turn(
                *(time.time(), self.number, self.kind, "speak" if self.kind == "http" else "job"),
                figures=figures,
                error=error,
                refused=refused,
            ),
        )

    def ask(self, figures: dict[str, float]) -> None:
        """Make the request, note its figures."""
        raise NotImplementedError


class HttpUser(_HttpCaller):
    """``POST /v1/speak``: the finished video."""

    def ask(self, figures: dict[str, float]) -> None:
        """One text."""
        began = time.perf_counter()
        answer = self.http.post(f"{self.url}/v1/speak", json={"text": TEXT}, timeout=120)
        answer.raise_for_status()
        figures["render"] = time.perf_counter() - began
        if answer.content[4:8] != b"ftyp":
            raise ValueError("the answer is no MP4")


class VideoUser(_HttpCaller):
    """``/v1/videos``: a job, watched until its video can be fetched."""

    kind = "video"

    def ask(self, figures: dict[str, float]) -> None:
        """One job with a text that no job had before."""
        began = time.perf_counter()
        text = f"{TEXT} It was ordered at {time.time_ns() % 1_000_000}."
        answer = self.http.post(f"{self.url}/v1/videos", json={"text": text}, timeout=30)
        answer.raise_for_status()
        job = answer.json()
        while job["status"] in ("queued", "running"):
            if time.perf_counter() - began > _JOB_SECONDS:
                raise TimeoutError(f"a job is {job['status']} after {_JOB_SECONDS:.0f} s")
            time.sleep(_POLL_SECONDS)
            answer = self.http.get(f"{self.url}/v1/videos/{job['id']}", timeout=30)
            answer.raise_for_status()
            job = answer.json()
        if job["status"] != "succeeded":
            raise ValueError(f"a job {job['status']}: {job['error']}")
        video = self.http.get(f"{self.url}{job['url']}", timeout=60)
        video.raise_for_status()
        figures["render"] = time.perf_counter() - began
        figures["real_time_factor"] = figures["render"] / job["duration"]
        if len(video.content) != job["size"]:
            raise ValueError("the video is not whole")

"""One video job: what was asked for, how far it is, what came of it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Final, Literal

Status = Literal["queued", "running", "succeeded", "failed", "cancelled"]
Stage = Literal["queued", "llm", "tts", "render", "publish", "done"]

UNFINISHED: Final = ("queued", "running")
FINISHED: Final = ("succeeded", "failed", "cancelled")


@dataclass(frozen=True)
class Request:
    """What a job is to make; fixed when it is created.

    Attributes:
        kind: whether ``text`` is said, answered, or there is a recording instead.
        avatar: who speaks.
        fps: frames a second.
        profile: name of the profile.
        text: what is said, or the message that is answered.
        samples: length of a recording at 16 kHz.
        digest: SHA-256 of a recording, hexadecimal.
        language: ISO 639 code of the text, or of the answer; None: not asked for.
    """

    kind: Literal["text", "message", "audio"]
    avatar: str
    fps: int
    profile: str
    text: str = ""
    samples: int = 0
    digest: str = ""
    language: str | None = None


@dataclass(frozen=True)
class Result:
    """A finished video.

    Attributes:
        video: path of the MP4 in the store.
        captions: path of the WebVTT file; None for recorded speech.
        size: bytes of the MP4.
        digest: SHA-256 of the MP4, hexadecimal.
        frames: number of frames.
        duration: seconds.
        cached: whether an earlier job made it.
    """

    video: str
    captions: str | None
    size: int
    digest: str
    frames: int
    duration: float
    cached: bool = False

    @property
    def folder(self) -> str:
        """Id of the job that made it, under which its files lie."""
        return self.video.partition("/")[0]


@dataclass(frozen=True)
class Removed:
    """A job that is no longer in the ledger.

    Attributes:
        id: of the job.
        folder: where its result lay: under its own id, or that of the job that it repeated.
    """

    id: str
    folder: str


@dataclass(frozen=True)
class Failure:
    """Why a job failed, in the words of the error."""

    code: str
    message: str
    remedy: str = ""


@dataclass(frozen=True)
class Job:
    """One video job.

    Attributes:
        id: cannot be guessed.
        owner: the API key, or ``local``.
        request: what it makes.
        fingerprint: digest of the request, to tell two requests with one idempotency key apart.
        idempotency_key: of the client.
        status: how it stands.
        stage: what is being done.
        progress: 0 to 1.
        created: seconds since the epoch.
        updated: likewise, of the last change.
        expires: when a finished one is deleted.
        attempts: how often a worker began it.
        result: of one that succeeded.
        error: of one that failed.
    """

    id: str
    owner: str
    request: Request
    fingerprint: str
    idempotency_key: str | None = None
    status: Status = "queued"
    stage: Stage = "queued"
    progress: float = 0.0
    created: float = field(default_factory=time.time)
    updated: float = field(default_factory=time.time)
    expires: float | None = None
    attempts: int = 0
    result: Result | None = None
    error: Failure | None = None

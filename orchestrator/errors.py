"""The project's error tree: what went wrong, whether trying again helps, what to do.

MuseTalkError
├── UsageError            the caller asked for something that cannot be (HTTP 400)
│   ├── MediaError        audio, picture or video that cannot be used (HTTP 422)
│   ├── AvatarError       no usable face, or no such avatar (HTTP 422)
│   └── NotFoundError     a name that is not there (HTTP 404)
├── SetupError            something the machine lacks: a file, a package, a port, a key (HTTP 503)
├── CheckpointError       weights that do not fit their config, naming file and key
├── RepositoryError       a model repository that cannot be served
│   └── EngineError       a TensorRT engine that cannot be built, or is not accurate
├── InferenceError        Triton answered with an error
│   ├── UnavailableError      nobody answers, or the server is shutting down (retryable)
│   ├── QueueFullError        the server refuses more work now (retryable)
│   ├── DeadlineError         no answer in time (retryable)
│   ├── BadInputError         shapes, names or dtypes the model does not take
│   └── ModelMissingError     the model is not loaded there
├── ServerDiedError       the embedded tritonserver ended by itself (retryable)
├── SpeechError           a TTS that did not speak (retryable)
├── LlmError              a language model that did not answer (retryable)
├── DatabaseError         the database of the video jobs is away (retryable)
├── TimeLimitError        a video job that took too long
├── ConflictError         a request that contradicts an earlier one (HTTP 409)
├── UnauthorizedError     no API key, or an unknown one (HTTP 401)
├── ForeignHostError      a request from somebody else's web page (HTTP 403)
├── StoppingError         the service is about to stop (retryable, HTTP 503)
├── OverloadedError       admission control said no (retryable, HTTP 429)
└── QuotaError            a key has used up what it may use (HTTP 429)
"""

from __future__ import annotations

from typing import ClassVar


class MuseTalkError(Exception):
    """Base of all errors raised on purpose by this project.

    Args:
        message: one line that says what happened, for the person who reads it.
        remedy: what that person can do about it; empty when nothing helps.
    """

    code: ClassVar[str] = "internal"
    retryable: ClassVar[bool] = False
    http_status: ClassVar[int] = 500

    def __init__(self, message: str, *, remedy: str = "") -> None:
        """Keep message and remedy apart, so that each surface shows them its own way."""
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        """Message and remedy on one line."""
        return f"{self.message} ({self.remedy})" if self.remedy else self.message


class UsageError(MuseTalkError):
    """The caller asked for something that cannot be."""

    code = "bad_request"
    http_status = 400


class MediaError(UsageError):
    """Audio, picture or video that cannot be used."""

    code = "bad_media"
    http_status = 422


class AvatarError(UsageError):
    """A picture or video without a usable face."""

    code = "bad_avatar"
    http_status = 422


class NotFoundError(UsageError):
    """A name that is not there."""

    code = "not_found"
    http_status = 404


class SetupError(MuseTalkError):
    """Something this machine lacks: a file, a package, a free port, a key."""

    code = "setup"
    http_status = 503


class CheckpointError(MuseTalkError):
    """Weights that do not fit their config; the message names file and key."""

    code = "bad_checkpoint"


class RepositoryError(MuseTalkError):
    """A model repository that cannot be served."""

    code = "bad_repository"


class EngineError(RepositoryError):
    """A TensorRT engine that cannot be built, or is not accurate enough to be served."""

    code = "engine"


class InferenceError(MuseTalkError):
    """Triton answered with an error that no other class describes."""

    code = "inference"
    http_status = 502


class UnavailableError(InferenceError):
    """Nobody answers, or the server is shutting down."""

    code = "triton_unavailable"
    retryable = True
    http_status = 503


class QueueFullError(InferenceError):
    """The server refuses more work now."""

    code = "triton_queue_full"
    retryable = True
    http_status = 429


class DeadlineError(InferenceError):
    """No answer within the deadline of the call."""

    code = "deadline"
    retryable = True
    http_status = 504


class BadInputError(InferenceError):
    """Shapes, names or dtypes that the model does not take."""

    code = "bad_input"
    http_status = 500


class ModelMissingError(InferenceError):
    """The model is not loaded on that server."""

    code = "model_missing"
    http_status = 503


class ServerDiedError(MuseTalkError):
    """The embedded tritonserver ended by itself."""

    code = "triton_died"
    retryable = True
    http_status = 503


class SpeechError(MuseTalkError):
    """A text-to-speech engine that did not speak."""

    code = "speech"
    retryable = True
    http_status = 502


class LlmError(MuseTalkError):
    """A language model that did not answer, or broke off."""

    code = "llm"
    retryable = True
    http_status = 502


class StoppingError(MuseTalkError):
    """The service is about to stop and takes no new work; another one may."""

    code = "stopping"
    retryable = True
    http_status = 503


class OverloadedError(MuseTalkError):
    """Admission control refused the work before it started."""

    code = "overloaded"
    retryable = True
    http_status = 429


class DatabaseError(MuseTalkError):
    """The database of the video jobs does not answer."""

    code = "database"
    retryable = True
    http_status = 503


class TimeLimitError(MuseTalkError):
    """A video job took longer than the time it was given."""

    code = "time_limit"
    http_status = 504


class ConflictError(MuseTalkError):
    """A request contradicts an earlier one."""

    code = "conflict"
    http_status = 409


class UnauthorizedError(MuseTalkError):
    """No API key, or one that is not known."""

    code = "unauthorized"
    http_status = 401


class ForeignHostError(MuseTalkError):
    """A request that comes from somebody else's web page."""

    code = "foreign_host"
    http_status = 403


class QuotaError(MuseTalkError):
    """A key has used up what it may use."""

    code = "quota"
    http_status = 429

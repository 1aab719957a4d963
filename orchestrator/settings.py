"""The one settings object: read from the environment, validated at start, frozen after.

Every field is the environment variable ``MUSETALK_<FIELD>`` in upper case, or a line of
``.env`` in the working directory.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from orchestrator.errors import SetupError

ROOT = Path(__file__).resolve().parent.parent
"""The checkout (or installation) that holds ``model_repository/``."""

SECRETS = Path("/run/secrets")
"""Where containers find their secrets: a file ``musetalk_<field>`` is worth the variable."""


class Settings(BaseSettings):
    """Everything an operator can set, with the defaults of ``make serve``."""

    model_config = SettingsConfigDict(
        env_prefix="MUSETALK_",
        env_file=".env",
        # Compose files write ${VARIABLE:-}: an address that is empty is no address.
        env_ignore_empty=True,
        secrets_dir=SECRETS if SECRETS.is_dir() else None,
        frozen=True,
        extra="ignore",
    )

    # Where things are
    repository: Path = ROOT / "model_repository" / "cpu"
    cache_dir: Path = Path.home() / ".cache" / "musetalk-serving"
    hf_endpoint: str = "https://huggingface.co"

    # Service
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    # Seconds that running requests and turns get when the service is told to stop
    drain_seconds: Annotated[float, Field(ge=0)] = 10.0

    grpc_port: Annotated[int, Field(ge=0, le=65535)] | None = None
    api_keys_file: Path | None = None
    cors_origins: Annotated[tuple[str, ...], NoDecode] = ()

    # Triton: an address makes the embedded server unnecessary
    triton: str | None = None
    triton_tls_ca: Path | None = None
    triton_token: SecretStr | None = None
    triton_in_flight: Annotated[int, Field(ge=1, le=256)] = 2
    triton_start_timeout: Annotated[float, Field(gt=0)] = 300.0
    inference_timeout: Annotated[float, Field(gt=0)] = 30.0

    # Speech
    tts: Literal["piper", "openai"] = "piper"
    piper_voice: Path | None = None
    tts_base_url: str | None = None
    tts_api_key: SecretStr | None = None
    tts_model: str = "tts-1"
    tts_voice: str = "alloy"
    tts_timeout: Annotated[float, Field(gt=0)] = 30.0
    tts_fallback: bool = True
    tts_fallback_after: Annotated[float, Field(gt=0)] = 5.0
    max_text_chars: Annotated[int, Field(gt=0)] = 5000
    max_audio_seconds: Annotated[float, Field(gt=0)] = 600.0
    max_audio_bytes: Annotated[int, Field(gt=0)] = 200 * 1024 * 1024

    # Replies: without a key or an address the embedded responder answers
    llm_base_url: str | None = None
    llm_api_key: SecretStr | None = None
    llm_model: str = "gpt-4o-mini"
    llm_max_tokens: Annotated[int, Field(ge=1, le=4096)] = 100
    llm_first_token_timeout: Annotated[float, Field(gt=0)] = 10.0
    llm_total_timeout: Annotated[float, Field(gt=0)] = 60.0
    llm_system_prompt: str = (
        "You are a talking portrait in a spoken conversation. Answer briefly, in plain spoken "
        "sentences: no lists, no markup, no emoji, no links."
    )

    # Transcription: what a viewer says, only when a server for it is set
    stt_base_url: str | None = None
    stt_api_key: SecretStr | None = None
    stt_model: str = "whisper-1"
    stt_timeout: Annotated[float, Field(gt=0)] = 30.0

    # Avatars
    max_avatar_seconds: Annotated[float, Field(gt=0)] = 60.0
    max_avatar_pixels: Annotated[int, Field(gt=0)] = 50_000_000
    max_prepared_bytes: Annotated[int, Field(gt=0)] = 4 << 30
    max_avatar_bytes: Annotated[int, Field(gt=0)] = 500 * 1024 * 1024

    # Rendering
    fps: Annotated[int, Field(ge=8, le=49)] = 25
    batch: Annotated[int, Field(ge=1, le=64)] = 8
    max_renders: Annotated[int, Field(ge=1, le=64)] = 2

    # Live sessions
    max_sessions: Annotated[int, Field(ge=1)] = 64
    # Estimated at the start when it is not given
    max_talkers: Annotated[float, Field(gt=0)] | None = None
    # A folder, or s3://BUCKET/PREFIX that several servers share; in memory without it
    conversation_store: str | None = None
    conversation_retention: Annotated[float, Field(gt=0)] = 86400.0

    # Video jobs: SQLite and a folder under cache_dir, or shared by several machines
    database_url: SecretStr | None = None
    video_store: str | None = None
    video_retention: Annotated[float, Field(gt=0)] = 3600.0
    max_videos: Annotated[int, Field(ge=1, le=64)] = 1
    max_videos_queued: Annotated[int, Field(ge=1)] = 100
    worker_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9.-]{1,100}$")] | None = None
    worker_timeout: Annotated[float, Field(ge=1)] = 30.0

    # What can be seen from outside
    log_format: Literal["text", "json"] = "text"
    debug_timing: bool = False
    otel_endpoint: str | None = None
    otel_triton_endpoint: str | None = None

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        """Origins with commas between them, as in ``https://a.example,https://b.example``."""
        if isinstance(value, str):
            return tuple(part.strip().rstrip("/") for part in value.split(",") if part.strip())
        return value


@cache
def settings() -> Settings:
    """Read and validate the settings once.

    Raises:
        SetupError: a value is unusable; the message names the variable.
    """
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = "MUSETALK_" + "_".join(str(part) for part in first["loc"]).upper()
        raise SetupError(f"{name}: {first['msg']}", remedy="correct the environment") from error

"""What a viewer said, as text: any server that speaks ``/v1/audio/transcriptions``."""

from __future__ import annotations

from typing import Any, Final

import openai

from orchestrator.errors import MediaError, SetupError, SpeechError
from orchestrator.openai_api import Endpoint
from orchestrator.rendering.tasks import within
from orchestrator.settings import Settings

_RETRIES: Final = 1
# The server found the sound itself unusable.
_BAD_SOUND: Final = frozenset({400, 413, 415, 422})


class Transcriber:
    """Asks a server what was said.

    Args:
        base_url: of the API, up to and with ``/v1``.
        api_key: None for servers that want none.
        model: name that the server knows.
        timeout: seconds until the answer.
    """

    def __init__(self, *, base_url: str, api_key: str | None, model: str, timeout: float) -> None:
        self._endpoint = Endpoint(
            "transcription server", "MUSETALK_STT", SpeechError, base_url, api_key
        )
        self._client = self._endpoint.client(timeout, retries=_RETRIES)
        self._model = model
        self._timeout = timeout

    async def transcribe(self, audio: bytes, filename: str, language: str | None = None) -> str:
        """Turn a recording into text.

        Args:
            audio: a file in any format that the server takes.
            filename: its name; the ending tells the format.
            language: ISO 639 code, when known.

        Returns:
            What was said; empty where nothing was.

        Raises:
            MediaError: the server cannot use this recording.
            SpeechError: it failed, sent nonsense, or took too long.
            SetupError: its address, key or model is refused.
        """
        known: dict[str, Any] = {"language": language} if language else {}
        try:
            answer: Any = await within(
                self._client.audio.transcriptions.create(
                    file=(filename, audio), model=self._model, response_format="json", **known
                ),
                self._timeout,
            )
        except TimeoutError as error:
            raise SpeechError(
                f"the transcription server did not answer within {self._timeout:g} s",
                remedy="try again, or raise MUSETALK_STT_TIMEOUT",
            ) from error
        except openai.APIStatusError as error:
            if error.status_code in _BAD_SOUND:
                raise MediaError(
                    "the transcription server cannot use this recording",
                    remedy="send WAV, WebM, MP3 or MP4 with speech in it",
                ) from error
            raise self._endpoint.explain(error) from error
        except openai.APIError as error:
            raise self._endpoint.explain(error) from error
        except ValueError as error:
            raise self._nonsense() from error
        text = getattr(answer, "text", None)
        if not isinstance(text, str):
            raise self._nonsense()
        return " ".join(text.split())

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    def _nonsense(self) -> SpeechError:
        return SpeechError(
            "the transcription server sent something that is no transcript",
            remedy="check MUSETALK_STT_BASE_URL",
        )


def transcriber(settings: Settings) -> Transcriber:
    """The transcription server that the settings name.

    Raises:
        SetupError: they name none.
    """
    if settings.stt_base_url is None:
        raise SetupError(
            "no transcription server is set",
            remedy="set MUSETALK_STT_BASE_URL to a server of /v1/audio/transcriptions",
        )
    return Transcriber(
        base_url=settings.stt_base_url,
        api_key=settings.stt_api_key.get_secret_value() if settings.stt_api_key else None,
        model=settings.stt_model,
        timeout=settings.stt_timeout,
    )

"""What the clients of OpenAI-compatible servers share: how to open one, what its errors mean."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import openai

from orchestrator.errors import MuseTalkError, SetupError

_OPENAI: Final = "https://api.openai.com/v1"
_CONNECT_SECONDS: Final = 5.0
_NO_KEY: Final = "none"
_WORDS: Final = 200


@dataclass(frozen=True)
class Endpoint:
    """One server and how to talk about it.

    Attributes:
        role: what the server is, in the words of a message: "speech server".
        variables: start of the environment variables that name it: ``MUSETALK_TTS``.
        failure: error for what may pass.
        base_url: of the API, up to and with ``/v1``; None is OpenAI's own.
        api_key: None for servers that want none; the environment's OPENAI_API_KEY is not read,
            so that it is never sent to somebody else's server.
        unsuitable: HTTP statuses that mean wrong settings and not a wrong request.
    """

    role: str
    variables: str
    failure: type[MuseTalkError]
    base_url: str | None
    api_key: str | None
    unsuitable: frozenset[int] = frozenset({404, 405, 410})

    @property
    def url(self) -> str:
        """The address without a password that may be in it."""
        return re.sub(r"//[^/@]*@", "//", self.base_url or _OPENAI).partition("?")[0]

    def client(self, timeout: float, *, retries: int = 0) -> openai.AsyncOpenAI:
        """Open a client; it connects with its first call.

        Args:
            timeout: seconds without a sign of the server.
            retries: by the client itself, before the answer has begun.
        """
        return openai.AsyncOpenAI(
            base_url=self.base_url or _OPENAI,
            api_key=self.api_key or _NO_KEY,
            timeout=openai.Timeout(timeout, connect=min(_CONNECT_SECONDS, timeout)),
            max_retries=retries,
        )

    def explain(self, error: openai.APIError) -> MuseTalkError:
        """Which of our errors it is: what the operator must change, or what may pass."""
        if isinstance(error, (openai.AuthenticationError, openai.PermissionDeniedError)):
            return SetupError(
                f"the {self.role} at {self.url} refuses the key",
                remedy=f"check {self.variables}_API_KEY",
            )
        if isinstance(error, openai.RateLimitError):
            if error.code == "insufficient_quota":
                return SetupError(
                    f"the account at {self.url} has no credit left", remedy="check its billing"
                )
            return self.failure(
                f"the {self.role} at {self.url} takes no more requests now",
                remedy="try again in a moment",
            )
        if isinstance(error, openai.APIStatusError):
            words = self._words(error.message)
            if error.status_code in self.unsuitable:
                return SetupError(
                    f"the {self.role} at {self.url} refuses what is asked for: {words}",
                    remedy=f"check {self.variables}_BASE_URL and {self.variables}_MODEL",
                )
            return self.failure(
                f"the {self.role} failed with status {error.status_code}: {words}",
                remedy="see that server's log",
            )
        if isinstance(error, openai.APITimeoutError):
            return self.failure(
                f"the {self.role} at {self.url} did not answer in time", remedy="try again"
            )
        if isinstance(error, openai.APIConnectionError):
            return self.failure(
                f"the {self.role} at {self.url} cannot be reached, or hung up",
                remedy=f"check {self.variables}_BASE_URL",
            )
        return self.failure(
            f"the {self.role} reported: {self._words(error.message)}",
            remedy="see that server's log",
        )

    def _words(self, message: str) -> str:
        """What the server said, on one line, without the key."""
        if self.api_key:
            message = message.replace(self.api_key, "***")
        return " ".join(message.split())[:_WORDS]


def may_pass(error: openai.APIError) -> bool:
    """Whether the same request may succeed a moment later."""
    if isinstance(error, openai.APIStatusError):
        if error.code == "insufficient_quota":
            return False
        return error.status_code in (408, 409, 429) or error.status_code >= 500
    return True

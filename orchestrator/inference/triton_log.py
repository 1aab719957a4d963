"""Reading tritonserver's log: the level of a line, and the one line that says why it stopped."""

from __future__ import annotations

import logging
import re
import time
from collections import deque
from dataclasses import dataclass

LEVELS = {
    "V": logging.DEBUG,
    "I": logging.INFO,
    "W": logging.WARNING,
    "E": logging.ERROR,
    "F": logging.CRITICAL,
}
_LINE = re.compile(r"^(?P<level>[VIWEF])\d{4} [\d:.]+ \d+ (?P<source>\S+)\] (?P<text>.*)$")
_LOAD_FAILED = re.compile(
    r"(failed to load '(?P<model>[^']+)' version \d+"
    r"|Poll failed for model directory '(?P<folder>[^']+)'): (?P<cause>.*)"
)
_LOADED = re.compile(r"^successfully loaded '(?P<model>[^']+)'")
_COMPUTES = re.compile(r"^(?P<model>\S+) computes in ")
"""What a model of ours says as the last thing before it is loaded."""
_NOISE = re.compile(
    r"^(Internal: |Invalid argument: |Unavailable: |Internal - |TritonModelException: )"
)
_KEPT = 50
_HARMLESS = ("CudaDriverHelper has not been initialized", "unable to create stream for ")
"""What the server logs as an error on every machine without a GPU."""


@dataclass(frozen=True)
class LogLine:
    """One line of the server's log."""

    level: int
    """A level of :mod:`logging`."""
    text: str
    """The message, without time stamp and source file."""


class LogReader:
    """Turns raw lines into :class:`LogLine`, and remembers what may explain a death."""

    def __init__(self) -> None:
        """Start with nothing read."""
        self._level = logging.INFO
        self._errors: deque[str] = deque(maxlen=_KEPT)
        self._last = ""
        self._model_failure = ""
        self._loaded: set[str] = set()
        self._computes: dict[str, float] = {}

    def read(self, raw: str) -> LogLine | None:
        """Parse one line; lines without a head continue the one before.

        Args:
            raw: a line as the server wrote it, or its Python stub.

        Returns:
            The line, or None when it says nothing.
        """
        match = _LINE.match(raw)
        text = raw.rstrip()
        if match:
            self._level = LEVELS[match["level"]]
            text = match["text"].strip()
            if len(text) > 1 and text[0] == text[-1] == '"':
                text = text[1:-1].replace('\\"', '"')
        if not text:
            return None
        if text.startswith(_HARMLESS):
            return LogLine(logging.DEBUG, text)
        if loaded := _LOADED.match(text):
            self._loaded.add(loaded["model"])
        elif computes := _COMPUTES.match(text):
            self._computes.setdefault(computes["model"], time.monotonic())
        failure = _LOAD_FAILED.search(text)
        if failure and not self._model_failure:
            cause = _tidy(failure["cause"])
            name = failure["model"] or failure["folder"]
            self._model_failure = f"model {name} cannot be loaded: {cause}"
        elif self._level >= logging.ERROR or text.startswith("error:"):
            self._errors.append(_tidy(text))
        if not text.startswith(("+", "|")):
            self._last = text
        return LogLine(self._level, text)

    @property
    def model_failure(self) -> str:
        """One line on the first model that could not be loaded; empty when none failed."""
        return self._model_failure

    def unheard(self, seconds: float) -> str | None:
        """Name of a model that said it is ready so long ago, and the server did not hear it.

        The server then waits for it without an end: this happens when the process of the model
        stood still for some seconds while it was loaded.
        """
        until = time.monotonic() - seconds
        for model, said in self._computes.items():
            if said <= until and model not in self._loaded:
                return model
        return None

    def reason(self) -> str:
        """One line that most likely says why the server ended."""
        if self._model_failure:
            return self._model_failure
        if self._errors:
            return self._errors[-1]
        return self._last


def _tidy(text: str) -> str:
    """A cause without Triton's words around it, in one line."""
    line = text.replace("\\n", "\n").strip().splitlines()[0].strip()
    while _NOISE.match(line):
        line = _NOISE.sub("", line)
    return line

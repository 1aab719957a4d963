"""Captions as WebVTT, from the times of the sentences."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

LINE: Final = 42
"""Characters of a line; a caption has at most two."""

_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True)
class SpokenSentence:
    """A sentence and when it is heard.

    Attributes:
        text: on one line.
        start: seconds from the start of the video.
        end: likewise.
    """

    text: str
    start: float
    end: float


def webvtt(sentences: Sequence[SpokenSentence]) -> str:
    """A WebVTT file.

    A sentence of more than two lines becomes several captions; each gets a share of its time
    by its number of characters.
    """
    blocks = ["WEBVTT"]
    for sentence in sentences:
        lines = _lines(sentence.text)
        pairs = [lines[first : first + 2] for first in range(0, len(lines), 2)]
        total = sum(len(line) for line in lines)
        start = sentence.start
        for pair in pairs:
            share = sum(len(line) for line in pair) / total
            end = start + (sentence.end - sentence.start) * share
            text = "\n".join(_escape(line) for line in pair)
            blocks.append(f"{_time(start)} --> {_time(end)}\n{text}")
            start = end
    return "\n\n".join(blocks) + "\n"


def _lines(text: str) -> list[str]:
    """Break a sentence at spaces; a word that is too long for a line stands alone on one."""
    lines: list[str] = []
    for word in _CONTROLS.sub(" ", text).split():
        if lines and len(lines[-1]) + 1 + len(word) <= LINE:
            lines[-1] += " " + word
        else:
            lines.append(word)
    return lines


def _escape(line: str) -> str:
    """Characters that mean something in WebVTT."""
    return line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _time(seconds: float) -> str:
    thousandths = round(seconds * 1000)
    minutes, rest = divmod(thousandths, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{rest // 1000:02}.{rest % 1000:03}"

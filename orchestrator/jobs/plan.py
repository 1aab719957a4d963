"""Cut a video into pieces that are rendered one by one, each on the frames of the whole."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from orchestrator.speech import SAMPLE_RATE
from orchestrator.speech.windows import frame_count

PIECE_SECONDS: Final = 10.0
"""Sentences are put together up to about this length: what a crash can cost."""

SEGMENT_SECONDS: Final = 30
"""Longer speech is cut here, where the Whisper encoder's segments meet."""


@dataclass(frozen=True)
class Speech:
    """One utterance that lies in the store.

    Attributes:
        samples: its length at 16 kHz.
        pause: seconds of silence after it; None ends the video with its last whole frame.
    """

    samples: int
    pause: float | None


@dataclass(frozen=True)
class Span:
    """Frames of one utterance.

    Attributes:
        speech: index of the utterance.
        first: its first frame here.
        end: after its last frame here.
        pause: frames after them that show the avatar silent.
    """

    speech: int
    first: int
    end: int
    pause: int

    @property
    def frames(self) -> int:
        """All its frames."""
        return self.end - self.first + self.pause


@dataclass(frozen=True)
class Window:
    """What of an utterance's sound a span needs.

    Attributes:
        start: first sample at 16 kHz; the start of one of the encoder's segments.
        end: after the last one.
        first: index of the span's first frame, counted from ``start``.
    """

    start: int
    end: int
    first: int


def window(span: Span, speech: Speech, fps: int) -> Window:
    """The segment in which a span lies with its neighbours, whose steps its edges read."""
    length = SEGMENT_SECONDS * SAMPLE_RATE
    before = max(0, span.first // (SEGMENT_SECONDS * fps) - 1)
    after = span.first // (SEGMENT_SECONDS * fps) + 2
    return Window(
        before * length,
        min(after * length, speech.samples),
        span.first - before * SEGMENT_SECONDS * fps,
    )


@dataclass(frozen=True)
class Piece:
    """Consecutive spans that are rendered into one file.

    Attributes:
        position: index in the video of its first frame.
        spans: in order.
    """

    position: int
    spans: tuple[Span, ...]

    @property
    def frames(self) -> int:
        """All its frames."""
        return sum(span.frames for span in self.spans)


def spans_of(index: int, speech: Speech, fps: int) -> Iterator[Span]:
    """The spans of one utterance: usually one; every 30 s another.

    Args:
        index: of the utterance.
        speech: the utterance.
        fps: frames a second.
    """
    frames = frame_count(speech.samples, fps)
    length = SEGMENT_SECONDS * fps
    pause = 0
    if speech.pause is not None:
        pause = math.ceil((speech.samples / SAMPLE_RATE + speech.pause) * fps) - frames
    for first in range(0, max(1, frames), length):
        end = min(first + length, frames)
        span = Span(index, first, end, pause if end == frames else 0)
        if span.frames:
            yield span


def pieces_of(speeches: Sequence[Speech], fps: int) -> list[Piece]:
    """Cut the whole video.

    Args:
        speeches: what is said, in order.
        fps: frames a second.

    Returns:
        The pieces in order; none without frames.
    """
    pieces: list[Piece] = []
    position = 0
    current: list[Span] = []

    def close() -> None:
        nonlocal position, current
        if current:
            piece = Piece(position, tuple(current))
            pieces.append(piece)
            position += piece.frames
            current = []

    for index, speech in enumerate(speeches):
        for span in spans_of(index, speech, fps):
            waiting = sum(one.frames for one in current)
            if waiting and waiting + span.frames > PIECE_SECONDS * fps:
                close()
            current.append(span)
    close()
    return pieces

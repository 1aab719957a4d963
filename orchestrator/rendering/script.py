"""What is said in a video, as a sequence of utterances: from a text, or from a recording."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from orchestrator.speech import SAMPLE_RATE

I16 = npt.NDArray[np.int16]


@dataclass(frozen=True)
class Utterance:
    """A stretch of speech that is encoded and rendered by itself.

    Attributes:
        pcm: I16[S] mono at 16 kHz, what the mouth follows.
        sound: I16[S'] mono at ``AUDIO_RATE``, what is heard; starts with ``pcm``.
        pause: seconds of silence after it; None ends the video with the last whole frame.
        share: part of the whole video, 0 to 1, for progress.
    """

    pcm: I16
    sound: I16
    pause: float | None
    share: float

    def pause_frames(self, fps: int) -> int:
        """Frames after those that the model renders, floor(S*fps/16000), at ``fps``."""
        if self.pause is None:
            return 0
        whole = math.ceil((len(self.pcm) / SAMPLE_RATE + self.pause) * fps)
        return whole - len(self.pcm) * fps // SAMPLE_RATE

"""Clips of training speech: sentences, pauses, room and noise; features and mouth tracks."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.demo.texts import sentence
from export.demo.timing import in_time
from export.demo.visemes import Phone, mouth_track
from orchestrator.errors import SetupError
from orchestrator.speech import SAMPLE_RATE
from orchestrator.speech.resample import Resampler

I16 = NDArray[np.int16]
FPS = 25
_ESPEAK = [
    "f1",
    "f2",
    "f3",
    "f5",
    "m1",
    "m2",
    "m3",
    "m4",
    "m5",
    "m6",
    "m7",
    "klatt",
    "klatt2",
    "Andy",
    "Annie",
    "Mike",
    "belinda",
    "john",
    "adam",
    "caleb",
    "linda",
    "max",
    "Michael",
    "david",
]
_ESPEAK_HELD = ["f4", "m8", "Alicia", "boris"]


@dataclass(frozen=True)
class Voice:
    """Who speaks; `held` voices are only for evaluation."""

    engine: str
    name: str
    held: bool = False


VOICES: tuple[Voice, ...] = (
    Voice("piper", "joe"),
    *(Voice("flite", v) for v in ("slt", "awb", "kal16")),
    Voice("flite", "rms", True),
    *(Voice("espeak", f"en-us+{v}") for v in _ESPEAK),
    *(Voice("espeak", f"fr+{v}") for v in ("f2", "m3", "m5", "f5")),
    *(Voice("espeak", f"en-us+{v}", True) for v in _ESPEAK_HELD),
    # A synthesiser, and a person, that no training clip has.
    Voice("festival", "ked_diphone", True),
)


class Speaker:
    """The process that speaks; a context manager."""

    def __enter__(self) -> Speaker:
        """Start it."""
        self._folder = tempfile.TemporaryDirectory()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "export.demo.voice_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=10)
        self._folder.cleanup()

    def speak(
        self, voice: Voice, text: str, slowness: float, pitch: int
    ) -> tuple[I16, list[Phone]]:
        """I16 samples at 16 kHz and the sounds in them, at the times when they are heard.

        Raises:
            SetupError: the process ended; its message is on standard error.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        target = Path(self._folder.name, "speech.raw")
        ask: dict[str, Any] = {"engine": voice.engine, "voice": voice.name, "text": text}
        ask |= {"slowness": slowness, "pitch": pitch, "target": str(target)}
        self._process.stdin.write(json.dumps(ask) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SetupError(
                f"{voice.engine} did not speak.",
                remedy="pip install piper-tts espeakng-loader; "
                "apt-get install flite festival festvox-kdlpc16k",
            )
        told = json.loads(line)
        pcm = np.frombuffer(target.read_bytes(), "<i2").astype(np.int16)
        if told["rate"] != SAMPLE_RATE:
            resampler = Resampler(told["rate"], SAMPLE_RATE)
            pcm = np.concatenate([resampler.push(pcm), resampler.finish()])
        return pcm, in_time(voice.engine, [Phone(*t) for t in told["times"]])


@dataclass(frozen=True)
class Clip:
    """Up to 30 s of speech: I16 at 16 kHz, and its phones."""

    voice: Voice
    held_out: bool
    pcm: I16
    phones: list[Phone]

    @property
    def frames(self) -> int:
        """Video frames at 25 a second."""
        return len(self.pcm) * FPS // SAMPLE_RATE

    def track(self) -> NDArray[np.float32]:
        """F32[frames, 6], the true mouth."""
        return mouth_track(self.phones, self.frames, FPS)


def augment(pcm: I16, rng: np.random.Generator) -> I16:
    """Gain, a small room, and noise of some colour."""
    x = pcm.astype(np.float32) / 32768
    x *= rng.uniform(0.25, 0.95) / max(1e-3, float(np.abs(x).max()))
    if rng.random() < 0.4:
        length = int(SAMPLE_RATE * rng.uniform(0.06, 0.22))
        echo = rng.standard_normal(length) * np.exp(-6 * np.arange(length) / length)
        echo *= rng.uniform(0.05, 0.25) / np.sqrt((echo**2).sum())
        echo[0] = 1.0
        size = 1 << (len(x) + length).bit_length()
        x = np.fft.irfft(np.fft.rfft(x, size) * np.fft.rfft(echo, size), size)[: len(x)]
    if rng.random() < 0.6:
        noise = rng.standard_normal(len(x))
        if rng.random() < 0.5:
            noise = np.convolve(noise, np.ones(8) / 8, "same")  # duller
        x = x + noise * 10 ** rng.uniform(-4.2, -2.1)
    return (np.clip(x, -1, 1) * 32767).astype(np.int16)


def make_clip(
    speaker: Speaker,
    voice: Voice,
    held_out: bool,
    rng: np.random.Generator,
    seconds: tuple[float, float] = (5, 28),
) -> Clip:
    """Sentences with pauses up to a random length between `seconds`."""
    length = rng.uniform(*seconds)
    clock = float(rng.uniform(0.05, 0.8))
    parts, phones = [np.zeros(int(clock * SAMPLE_RATE), np.int16)], []
    language = "fr" if voice.name.startswith("fr") else "en"
    while clock < length:
        text = sentence(rng, language, held_out)
        pcm, found = speaker.speak(
            voice, text, float(rng.uniform(0.82, 1.25)), int(rng.integers(20, 80))
        )
        pause = float(rng.choice([0.12, 0.3, 0.6, 1.2]))
        if clock + len(pcm) / SAMPLE_RATE + pause > 29.8:
            break
        phones += [Phone(clock + p.start, clock + p.end, p.symbol) for p in found]
        parts += [pcm, np.zeros(int(pause * SAMPLE_RATE), np.int16)]
        clock = sum(len(p) for p in parts) / SAMPLE_RATE
    return Clip(voice, held_out, augment(np.concatenate(parts), rng), phones)


def quiet_clip(rng: np.random.Generator) -> Clip:
    """Nobody speaks: digital zeros, the noise of a room, hum, or breath; the mouth is at rest."""
    count = int(SAMPLE_RATE * rng.uniform(1, 28))
    kind = int(rng.integers(4))
    x = np.zeros(count)
    if kind:
        x = rng.standard_normal(count) * 10 ** rng.uniform(-4.5, -2.1)
    if kind == 2:
        x += 10 ** rng.uniform(-4, -2.5) * np.sin(np.arange(count) * 100 * np.pi / SAMPLE_RATE)
    if kind == 3:  # one breath in four seconds
        x *= 1 + 5 * np.maximum(0, np.sin(np.arange(count) * np.pi / 2 / SAMPLE_RATE)) ** 6
    pcm = (np.clip(x, -1, 1) * 32767).astype(np.int16)
    return Clip(Voice("quiet", "nobody"), False, pcm, [])


def make_clips(count: int, seed: int = 0) -> Iterator[Clip]:
    """Clips for training, then a fifth as many for evaluation.

    Args:
        count: of the training clips, by turns of espeak-ng, flite and Piper, most of the first,
            which has the most voices; every sixth is French and every twelfth without speech.
        seed: of all chance.
    """
    rng = np.random.default_rng(seed)
    seen = [v for v in VOICES if not v.held]
    held = [v for v in VOICES if v.held]
    french = [v for v in seen if v.name.startswith("fr")]
    with Speaker() as speaker:
        for i in range(count):
            if i % 12 == 7:
                yield quiet_clip(rng)
                continue
            engine = ("espeak", "flite", "piper", "espeak", "flite", "espeak", "piper")[i % 7]
            pool = french if i % 6 == 3 else [v for v in seen if v.engine == engine]
            yield make_clip(speaker, pool[int(rng.integers(len(pool)))], False, rng)
        for i in range(max(4, count // 5)):
            pool = held if i % 2 else [seen[0], seen[1], seen[2], seen[4]]
            yield make_clip(speaker, pool[(i // 2) % len(pool)], True, rng)

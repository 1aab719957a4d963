"""A program of its own that speaks with Piper; the rest of the system talks to it over pipes.

Piper is GPL-3.0. This file is the only one that imports it, is run as a separate process
(``python -I piper_worker.py VOICE.onnx THREADS``), and imports nothing else of this project.

Both ways go frames of one byte kind, request number and payload length (u32, little endian), and
the payload. In: ``T`` text in UTF-8, ``C`` cancel that request. Out: ``R`` ready, with JSON about
the voice; ``A`` samples, signed 16 bit mono; ``E`` end of a request; ``X`` error, in UTF-8. The
end of standard input ends the program at once.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import struct
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

HEADER = struct.Struct("<cII")

# Piper fills the range; resampling and encoding need some room above.
_VOLUME = 0.85


class Cancellable:
    """An ONNX Runtime session whose run can be ended from another thread."""

    def __init__(self, path: str, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Threads that wait in loops take what the frames on the same cores need.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._run_options_type = onnxruntime.RunOptions
        self._session = onnxruntime.InferenceSession(
            path, sess_options=options, providers=["CPUExecutionProvider"]
        )
        self.run_options = onnxruntime.RunOptions()

    def renew(self) -> None:
        """Forget an earlier cancel."""
        self.run_options = self._run_options_type()

    def run(self, names: Sequence[str] | None, feed: dict[str, Any]) -> Any:
        """As the session's own, under the current run options."""
        return self._session.run(names, feed, self.run_options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)


class Worker:
    """One voice, one request at a time, in order.

    Args:
        voice: path of the ``.onnx`` file.
        threads: of ONNX Runtime.
        output: where frames go.
    """

    def __init__(self, voice: str, threads: int, output: BinaryIO) -> None:
        from piper import PiperVoice, SynthesisConfig
        from piper.config import PiperConfig

        self._output = output
        described = json.loads(Path(f"{voice}.json").read_text(encoding="utf-8"))
        self._session = Cancellable(voice, threads)
        self._voice = PiperVoice(
            session=self._session,  # type: ignore[arg-type, unused-ignore]
            config=PiperConfig.from_dict(described),
        )
        self._config = SynthesisConfig(volume=_VOLUME)
        self._requests: queue.Queue[tuple[int, str]] = queue.Queue()
        self._cancelled: set[int] = set()
        self._current: int | None = None
        self._lock = threading.Lock()
        self.about = {
            "rate": self._voice.config.sample_rate,
            "language": described.get("language", {}).get("family", ""),
        }

    def send(self, kind: bytes, number: int, payload: bytes = b"") -> None:
        """Write one frame."""
        self._output.write(HEADER.pack(kind, number, len(payload)) + payload)
        self._output.flush()

    def read(self, source: BinaryIO) -> None:
        """Take requests until the other side is gone, then end the whole program."""
        while len(header := source.read(HEADER.size)) == HEADER.size:
            kind, number, length = HEADER.unpack(header)
            payload = source.read(length)
            if kind == b"T":
                self._requests.put((number, payload.decode("utf-8")))
            elif kind == b"C":
                with self._lock:
                    self._cancelled.add(number)
                    if self._current == number:
                        self._session.run_options.terminate = True
        os._exit(0)

    def work(self) -> None:
        """Speak what is asked for, for ever."""
        while True:
            number, text = self._requests.get()
            with self._lock:
                self._current = number
                self._session.renew()
            try:
                self._speak(number, text)
            except Exception as error:  # noqa: BLE001 -- whatever it is, the other side is told
                if number not in self._cancelled:
                    self.send(b"X", number, f"{type(error).__name__}: {error}".encode())
            with self._lock:
                self._current = None
                # Numbers go up and requests come in order: what is behind can be forgotten.
                self._cancelled = {later for later in self._cancelled if later > number}
            self.send(b"E", number)

    def _speak(self, number: int, text: str) -> None:
        if number in self._cancelled:
            return
        for chunk in self._voice.synthesize(text, self._config):
            if number in self._cancelled:
                return
            self.send(b"A", number, chunk.audio_int16_bytes)


def main() -> None:
    """Load the voice named on the command line and serve it."""
    # Libraries may print; frames have the real standard output for themselves.
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    try:
        worker = Worker(sys.argv[1], int(sys.argv[2]), output)
    except Exception as error:  # noqa: BLE001 -- whatever it is, the other side is told
        message = f"{type(error).__name__}: {error}".encode()
        with contextlib.suppress(BrokenPipeError):
            output.write(HEADER.pack(b"X", 0, len(message)) + message)
            output.flush()
        sys.exit(1)
    threading.Thread(target=worker.read, args=(sys.stdin.buffer,), daemon=True).start()
    with contextlib.suppress(BrokenPipeError):
        worker.send(b"R", 0, json.dumps(worker.about).encode())
        worker.work()


if __name__ == "__main__":
    main()

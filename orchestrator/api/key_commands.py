"""Bodies of ``musetalk keys``."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from orchestrator.api.access import Access
from orchestrator.api.keys import KeyFile, Limits, keys_path
from orchestrator.api.usage import today
from orchestrator.settings import Settings


def add(settings: Settings, *, name: str, sessions: int, jobs: int, video_seconds: int) -> None:
    """Make a key: the key alone on standard output, words about it on standard error.

    Args:
        settings: of the process.
        name: whose it is.
        sessions: live ones at a time.
        jobs: unfinished ones at a time.
        video_seconds: of video in a UTC day.

    Raises:
        MuseTalkError: it could not be made.
    """
    file = KeyFile(keys_path(settings))
    _, secret = file.add(name, Limits(sessions, jobs, video_seconds))
    print(secret)  # noqa: T201 -- the command's own output
    print(  # noqa: T201
        f"{name}: keep the key now, {file.path} has only its hash; a running service that had "
        "no key before asks for one from its next start on",
        file=sys.stderr,
    )


def show(settings: Settings) -> None:
    """Print a table of the keys.

    Raises:
        SetupError: their file, or the database of their use, cannot be read.
    """
    access = Access(settings)
    used = access.usage.by_owner(today()) if access.required else {}
    access.usage.close()
    table = Table("name", "id", "created", "sessions", "jobs", "seconds today")
    for key in KeyFile(keys_path(settings)).keys().values():
        limits = key.limits
        seconds = f"{used.get(key.id, 0.0):.0f} of {limits.video_seconds}"
        counts = (str(limits.sessions), str(limits.jobs))
        table.add_row(escape(key.name), key.id, key.created, *counts, seconds)
    Console().print(table if table.row_count else "no keys yet: musetalk keys add NAME")


def remove(settings: Settings, *, name: str) -> None:
    """Make a key useless.

    Args:
        settings: of the process.
        name: name or id of the key.

    Raises:
        NotFoundError: there is none.
    """
    KeyFile(keys_path(settings)).remove(name)
    Console().print(f"{name} is removed", markup=False, highlight=False)

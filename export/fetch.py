"""``musetalk export fetch``: the official weights, resumed where they stopped, checked by hash.

The hub's own client does the transfer (resume, retries, mirrors); what it brought is believed
only when its SHA-256 is the pinned one.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

from export.manifest import sha256
from export.weights import PARTS, TAESD_CONFIG, File, Part
from orchestrator.errors import CheckpointError, SetupError, UsageError

STAGING = ".fetch"
"""Folder inside the target for what is under way; an interrupted run continues from it."""
Say = Callable[[str], None]


def _print(line: str) -> None:
    print(line, flush=True)  # noqa: T201 -- the command's own output


def choose(only: Iterable[str] | None) -> dict[str, Part]:
    """The parts to fetch.

    Raises:
        UsageError: a name that is none of them.
    """
    names = list(only or PARTS)
    for name in names:
        if name not in PARTS:
            raise UsageError(f"{name} is no part", remedy=f"one of {', '.join(PARTS)}")
    return {name: PARTS[name] for name in names}


def _consent(parts: dict[str, Part], accept: bool, say: Say) -> None:
    say("These weights are other people's work, on these terms:")
    for name, part in parts.items():
        say(f"  {name} ({part.repository}): {part.licence}")
    if accept:
        return
    if not sys.stdin.isatty():
        raise UsageError("the licences were not accepted", remedy="add --accept-licences")
    if input("Do you accept them? [y/N] ").strip().lower() not in ("y", "yes"):
        raise UsageError("the licences were not accepted")


def _complete(path: Path, file: File) -> bool:
    return path.is_file() and path.stat().st_size == file.size and sha256(path) == file.sha256


def _fetch_file(part: Part, file: File, directory: Path, endpoint: str | None) -> None:
    staging = directory / STAGING / part.repository.replace("/", "--")
    try:
        fetched = Path(
            hf_hub_download(
                part.repository,
                file.name,
                revision=part.revision,
                local_dir=staging,
                endpoint=endpoint,
                token=False,
            )
        )
    except OfflineModeIsEnabled as error:
        raise SetupError(
            "the hub's client is switched to offline", remedy="unset HF_HUB_OFFLINE"
        ) from error
    except LocalEntryNotFoundError as error:
        raise SetupError(
            f"{endpoint or 'the model hub'} cannot be reached for {file.path}",
            remedy="check the network, or name a mirror with --endpoint; run again to continue",
        ) from error
    except HfHubHTTPError as error:
        raise SetupError(
            f"{part.repository}/{file.name}: {str(error).splitlines()[0]}",
            remedy="try again, or name a mirror with --endpoint",
        ) from error
    except OSError as error:
        raise SetupError(
            f"{file.path}: the transfer broke off: {error}", remedy="run again to continue"
        ) from error
    if not _complete(fetched, file):
        fetched.unlink()
        raise CheckpointError(
            f"{file.path}: what came is not the pinned file (SHA-256 differs)",
            remedy="run again, or use another mirror",
        )
    target = directory / file.path
    target.parent.mkdir(parents=True, exist_ok=True)
    fetched.replace(target)


def run(
    directory: Path,
    only: Iterable[str] | None = None,
    accept: bool = False,
    endpoint: str | None = None,
    say: Say = _print,
) -> None:
    """Fetch the official weights into MuseTalk's layout; files already there are kept.

    Args:
        directory: the checkpoint folder.
        only: names of parts; all by default.
        accept: the licences were read and are accepted.
        endpoint: address of a mirror; ``MUSETALK_HF_ENDPOINT`` and the hub itself come next.
        say: told each step.

    Raises:
        UsageError: a wrong part, or licences not accepted.
        SetupError: no network, or not enough room on the disk.
        CheckpointError: a file that is not the pinned one.
    """
    parts = choose(only)
    _consent(parts, accept, say)
    endpoint = endpoint or os.environ.get("MUSETALK_HF_ENDPOINT")
    directory.mkdir(parents=True, exist_ok=True)
    wanted = [
        (part, file)
        for part in parts.values()
        for file in part.files
        if not _complete(directory / file.path, file)
    ]
    needed = sum(file.size for _, file in wanted)
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise SetupError(
            f"{needed / 1e9:.1f} GB to fetch, {free / 1e9:.1f} GB free in {directory}",
            remedy="free some, or name another folder",
        )
    for part, file in wanted:
        say(f"{file.path}: {file.size / 1e6:.1f} MB")
        _fetch_file(part, file, directory, endpoint)
    if "taesd" in parts:
        (directory / "taesd" / "config.json").write_text(json.dumps(TAESD_CONFIG, indent=1))
    shutil.rmtree(directory / STAGING, ignore_errors=True)
    say(f"{directory}: complete")

"""Which GPU an engine is built for, as the driver's own tool tells it."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass

from orchestrator.errors import SetupError

TIMEOUT = 20.0
_MIG = re.compile(r"^\s+MIG (\S+)\s+Device", re.MULTILINE)


@dataclass(frozen=True)
class Device:
    """One kind of GPU.

    Attributes:
        name: as the driver calls it.
        sm: compute capability, ``8.9``.
        memory_mib: of the whole GPU.
        driver: version.
        mig: profile of its slice, ``1g.10gb``; empty for a whole GPU.
    """

    name: str
    sm: str
    memory_mib: int
    driver: str
    mig: str = ""

    def __str__(self) -> str:
        """For a person."""
        mig = f", MIG {self.mig}" if self.mig else ""
        return f"{self.name} (SM {self.sm}{mig}, {self.memory_mib} MiB, driver {self.driver})"


def _ask(*arguments: str) -> str:
    program = shutil.which("nvidia-smi")
    if program is None:
        raise SetupError("no GPU here: there is no nvidia-smi", remedy=_REMEDY)
    try:
        answer = subprocess.run(
            [program, *arguments], capture_output=True, text=True, timeout=TIMEOUT, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SetupError(
            f"nvidia-smi does not answer: {error}", remedy="check the driver"
        ) from error
    if answer.returncode != 0:
        said = (answer.stdout + answer.stderr).strip().splitlines() or ["no reason given"]
        raise SetupError(f"nvidia-smi failed: {said[0]}", remedy="check the driver")
    return answer.stdout


_REMEDY = "run it where the engines will be served, or ask for --plan or --target onnxruntime"


def detect() -> Device:
    """The GPU that this process sees.

    Raises:
        SetupError: there is none, the driver does not answer, or several kinds are visible.
    """
    fields = "name,compute_cap,memory.total,driver_version"
    listing = _ask(f"--query-gpu={fields}", "--format=csv,noheader,nounits")
    kinds = {
        tuple(part.strip() for part in line.split(",")) for line in listing.splitlines() if line
    }
    slices = set(_MIG.findall(_ask("-L")))
    if len({kind[:2] for kind in kinds}) > 1 or len(slices) > 1:
        seen = ", ".join(sorted({kind[0] for kind in kinds} | slices))
        raise SetupError(
            f"several kinds of GPU are visible: {seen}", remedy="give this container one of them"
        )
    try:
        name, sm, memory, driver = min(kinds)
        return Device(name, sm, int(memory), driver, slices.pop() if slices else "")
    except ValueError as error:
        raise SetupError(
            f"nvidia-smi says {listing.strip()[:80]!r}", remedy="check the driver"
        ) from error

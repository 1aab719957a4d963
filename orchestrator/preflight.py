"""Checks that come before anything is installed; run by ``make`` with the system's Python.

Standard library only, and no syntax newer than Python 3.8: it must be able to say what is
missing on a machine that lacks it. Prints the interpreter to use, or each problem with the
command that mends it on standard error and exits with status 1.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from typing import Dict, List, Optional, Tuple

VERSIONS = ("3.11", "3.12", "3.13", "3.10")
"""Supported versions, best tested first."""
GLIBC = (2, 35)
DISK_GB = 6.0

_PROBE = """
import ctypes, importlib.util, sys, sysconfig
name = 'libpython%d.%d.so.1.0' % sys.version_info[:2]
shared = False
for candidate in (name, sysconfig.get_config_var('LIBDIR') + '/' + name):
    try:
        ctypes.CDLL(candidate)
        shared = True
        break
    except OSError:
        pass
venv = importlib.util.find_spec('venv') and importlib.util.find_spec('ensurepip')
print('%d.%d' % sys.version_info[:2], int(shared), int(bool(venv)), sys.executable)
"""


@dataclass(frozen=True)
class Interpreter:
    """One Python found on this machine."""

    path: str
    version: str
    shared_library: bool
    venv: bool

    @property
    def usable(self) -> bool:
        """Whether everything can be built on it."""
        return self.version in VERSIONS and self.shared_library and self.venv


@dataclass(frozen=True)
class Facts:
    """What the checks look at."""

    system: str
    machine: str
    glibc: Optional[Tuple[int, int]]
    free_gb: float
    installer: str
    """``apt``, ``dnf``, ``pacman``, ``zypper``, or empty."""
    interpreters: Tuple[Interpreter, ...]


_INSTALL: Dict[str, str] = {
    "apt": "sudo apt-get install -y {packages}",
    "dnf": "sudo dnf install -y {packages}",
    "zypper": "sudo zypper install -y {packages}",
    "pacman": "sudo pacman -S --needed {packages}",
}


def _packages(installer: str, version: str) -> str:
    if installer == "apt":
        return "python{0} python{0}-venv libpython{0}".format(version)
    if installer == "dnf":
        return "python{0} python{0}-libs".format(version)
    if installer == "zypper":
        short = version.replace(".", "")
        return "python{0} libpython{1}-1_0".format(short, version.replace(".", "_"))
    return "python"


def _mend(facts: Facts, version: str) -> str:
    command = _INSTALL.get(facts.installer)
    if command is None:
        return "install CPython {} with its shared library and venv module".format(version)
    return command.format(packages=_packages(facts.installer, version))


def choose(facts: Facts) -> Optional[Interpreter]:
    """The interpreter to use, or None when none will do."""
    usable = [found for found in facts.interpreters if found.usable]
    return min(usable, key=lambda found: VERSIONS.index(found.version), default=None)


def problems(facts: Facts) -> List[str]:
    """What stands in the way, one line each, with the command that mends it."""
    found = []
    if facts.system != "Linux" or facts.machine not in ("x86_64", "AMD64"):
        found.append(
            "this is {} on {}; the Triton server runs on x86-64 Linux only: use such a machine, "
            "or a container of it".format(facts.system, facts.machine)
        )
        return found
    if facts.glibc is None or facts.glibc < GLIBC:
        version = "none" if facts.glibc is None else "{}.{}".format(*facts.glibc)
        found.append(
            "glibc is {}, the Triton server needs {}.{}: use Debian 12, Ubuntu 22.04, "
            "Fedora 36 or newer".format(version, *GLIBC)
        )
    if choose(facts) is None:
        found.append(_python_problem(facts))
    if facts.free_gb < DISK_GB:
        found.append(
            "{:.1f} GB free here, set-up needs {:.0f} GB: free some, or clone to another "
            "disk".format(facts.free_gb, DISK_GB)
        )
    return found


def _python_problem(facts: Facts) -> str:
    supported = [found for found in facts.interpreters if found.version in VERSIONS]
    if not supported:
        return "no Python 3.10 to 3.13 on PATH: {}".format(_mend(facts, VERSIONS[0]))
    best = min(supported, key=lambda found: VERSIONS.index(found.version))
    if not best.shared_library:
        return "{} has no shared library libpython{}.so.1.0, which Triton loads: {}".format(
            best.path, best.version, _mend(facts, best.version)
        )
    return "{} has no venv module: {}".format(best.path, _mend(facts, best.version))


def _glibc() -> Optional[Tuple[int, int]]:
    name, version = platform.libc_ver()
    if name != "glibc":
        return None
    major, minor = version.split(".")[:2]
    return int(major), int(minor)


def _probe(path: str) -> Optional[Interpreter]:
    try:
        output = subprocess.run(
            [path, "-c", _PROBE], capture_output=True, text=True, timeout=20, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    version, shared, venv, executable = output.split(maxsplit=3)
    return Interpreter(executable.strip(), version, shared == "1", venv == "1")


def gather(folder: str) -> Facts:
    """Look at this machine.

    Args:
        folder: where the environment will be made.
    """
    wanted = os.environ.get("PYTHON")
    names = [wanted] if wanted else ["python3"] + ["python" + version for version in VERSIONS]
    paths = [path for path in (shutil.which(name) for name in names) if path]
    interpreters = [found for found in (_probe(path) for path in paths) if found]
    return Facts(
        system=platform.system(),
        machine=platform.machine(),
        glibc=_glibc(),
        free_gb=shutil.disk_usage(folder).free / 1e9,
        installer=next(
            (
                tool
                for tool, program in (
                    ("apt", "apt-get"),
                    ("dnf", "dnf"),
                    ("zypper", "zypper"),
                    ("pacman", "pacman"),
                )
                if shutil.which(program)
            ),
            "",
        ),
        interpreters=tuple(interpreters),
    )


def main() -> int:
    """Print the interpreter to use, or what is missing."""
    facts = gather(os.getcwd())
    found = problems(facts)
    for line in found:
        sys.stderr.write("make: " + line + "\n")
    chosen = choose(facts)
    if found or chosen is None:
        return 1
    sys.stdout.write(chosen.path + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

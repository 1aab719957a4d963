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
from pathlib import Path

VERSIONS = ("3.11", "3.12", "3.13", "3.10")
"""Supported versions, best tested first."""
GLIBC = (2, 35)
DISK_GB = 6.0

_PROBE = """
import ctypes, importlib.util, sys, sysconfig
name = 'libpython%d.%d.so.1.0' % sys.version_info[:2]
shared = False
folders = (sysconfig.get_config_var('LIBDIR'), sys.base_prefix + '/lib')
for candidate in [name] + [folder + '/' + name for folder in folders if folder]:
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
    glibc: tuple[int, int] | None
    free_gb: float
    installer: str
    """``apt``, ``dnf``, ``pacman``, ``zypper``, or empty."""
    root: bool
    interpreters: tuple[Interpreter, ...]


_INSTALL: dict[str, str] = {
    "apt": "apt-get install -y",
    "dnf": "dnf install -y",
    "zypper": "zypper install -y",
    "pacman": "pacman -S --needed",
}
_DEFAULT_PACKAGES: dict[str, str] = {
    "apt": "python3 python3-venv python3-dev",
    "dnf": "python3.12 python3.12-libs",
    "zypper": "python313 libpython3_13-1_0",
}
"""A supported Python with its shared library; Arch Linux has only the newest one."""
_VERSION_PACKAGES: dict[str, str] = {
    "apt": "libpython{dot} python{dot}-venv",
    "dnf": "python{dot}-libs",
    "zypper": "libpython{under}-1_0",
}


def _command(facts: Facts, packages: str) -> str:
    sudo = "" if facts.root else "sudo "
    return f"{sudo}{_INSTALL[facts.installer]} {packages}"


def _install_python(facts: Facts) -> str:
    packages = _DEFAULT_PACKAGES.get(facts.installer)
    if packages is not None:
        return _command(facts, packages)
    uv = _command(facts, "uv") if facts.installer else "install uv"
    return uv + " && uv python install 3.12 && make setup PYTHON=$(uv python find 3.12)"


def _complete_python(facts: Facts, found: Interpreter) -> str:
    """What adds the shared library and venv to an interpreter."""
    packages = _VERSION_PACKAGES.get(facts.installer)
    if packages is not None and found.path.startswith("/usr/bin/"):
        under = found.version.replace(".", "_")
        return _command(facts, packages.format(dot=found.version, under=under))
    return (
        "build it with --enable-shared (PYTHON_CONFIGURE_OPTS=--enable-shared pyenv install "
        f"{found.version}), or name another one: make setup PYTHON=/usr/bin/python3"
    )


def choose(facts: Facts) -> Interpreter | None:
    """The interpreter to use, or None when none will do."""
    usable = [found for found in facts.interpreters if found.usable]
    return min(usable, key=lambda found: VERSIONS.index(found.version), default=None)


def problems(facts: Facts) -> list[str]:
    """What stands in the way, one line each, with the command that mends it."""
    found = []
    if facts.system != "Linux" or facts.machine not in ("x86_64", "AMD64"):
        found.append(
            f"this is {facts.system} on {facts.machine}; the Triton server runs on x86-64 Linux "
            "only: use such a machine, or a container of it"
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
            f"{facts.free_gb:.1f} GB free here, set-up needs {DISK_GB:.0f} GB: free some, or "
            "clone to another disk"
        )
    return found


def _python_problem(facts: Facts) -> str:
    supported = [found for found in facts.interpreters if found.version in VERSIONS]
    if not supported:
        return f"no Python 3.10 to 3.13 on PATH: {_install_python(facts)}"
    best = min(supported, key=lambda found: VERSIONS.index(found.version))
    if not best.shared_library:
        return (
            f"{best.path} has no shared library libpython{best.version}.so.1.0, which Triton "
            f"loads: {_complete_python(facts, best)}"
        )
    return f"{best.path} has no venv module: {_complete_python(facts, best)}"


def _glibc() -> tuple[int, int] | None:
    name, version = platform.libc_ver()
    if name != "glibc":
        return None
    major, minor = version.split(".")[:2]
    return int(major), int(minor)


def _probe(path: str) -> Interpreter | None:
    try:
        output = subprocess.run(
            [path, "-c", _PROBE], capture_output=True, text=True, timeout=20, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    version, shared, venv, executable = output.split(maxsplit=3)
    return Interpreter(executable.strip(), version, shared == "1", venv == "1")


def gather(folder: Path) -> Facts:
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
        root=os.geteuid() == 0,
        interpreters=tuple(interpreters),
    )


def main() -> int:
    """Print the interpreter to use, or what is missing."""
    facts = gather(Path.cwd())
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

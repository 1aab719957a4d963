"""Where the embedded tritonserver is, and what it needs around it to run.

The ``nvidia-pytriton`` wheel carries the server, its Python backend and one stub process for
each Python version. The folder of backends that the server gets is put together from them and
from our own backend, in a scratch folder of each run.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import shutil
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import SetupError
from orchestrator.inference.ports import LOOPBACK, Ports

BACKENDS = Path(__file__).resolve().parent / "backends"
MALLOC = {
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(256 << 20),
    "MALLOC_TOP_PAD_": str(4 << 20),
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
"""Keeps the memory of answers (1.5 MB for 8 faces) between requests, in huge pages. glibc would
otherwise map and unmap it page by page each time, which made half of what Triton costs for a
batch (measured: 16 ms with its defaults, 7 ms with these). 32 MB is the most glibc accepts and
holds the activations of a batch of 8 as well: 8 MB made Triton cost 14 % more there, not 1 %."""
STUB = "triton_python_backend_stub"


@dataclass(frozen=True)
class Distribution:
    """Files of one tritonserver that runs on this machine."""

    binary: Path
    libraries: Path
    python_backend: Path
    stub: Path
    libpython: Path | None

    def lay_out_backends(self, folder: Path) -> Path:
        """Lay out a ``--backend-directory`` with the Python backend and ours.

        Args:
            folder: an existing empty folder; gets copies (4 MB): Triton refuses a backend
                whose links lead out of the folder.

        Returns:
            The folder to give to tritonserver.
        """
        root = folder / "backends"
        python = root / "python"
        python.mkdir(parents=True)
        for entry in self.python_backend.iterdir():
            if entry.is_file():
                shutil.copy2(entry, python)
        shutil.copy2(self.stub, python / STUB)
        for backend in BACKENDS.iterdir():
            if (backend / "model.py").is_file():
                shutil.copytree(backend, root / backend.name, ignore=_no_caches)
        return root

    def command(
        self,
        *,
        name: str,
        repository: Path,
        backends: Path,
        ports: Ports,
        start_timeout: float,
        drain: int,
        traces: str | None = None,
    ) -> list[str]:
        """Command line of a server: loopback only, every model loaded at start or none.

        Args:
            name: what the server calls itself; also the prefix of its shared memory.
            repository: folder of models.
            backends: folder made by :meth:`lay_out_backends`.
            ports: where to listen.
            start_timeout: seconds that a model may take to load.
            drain: seconds for requests under way when the server is stopped.
            traces: OTLP/HTTP address for spans of the requests whose caller traces them.

        Returns:
            Program and arguments.
        """
        python = {"shm-region-prefix-name": name, "stub-timeout-seconds": int(start_timeout)}
        return [
            str(self.binary),
            f"--id={name}",
            f"--model-repository={repository}",
            f"--backend-directory={backends}",
            "--model-control-mode=none",
            "--disable-auto-complete-config",
            "--exit-on-error=true",
            "--strict-readiness=true",
            f"--exit-timeout-secs={drain}",
            f"--grpc-address={LOOPBACK}",
            f"--grpc-port={ports.grpc}",
            # Clients ping every 30 s, idle ones too; by default that is taken for an attack.
            "--grpc-http2-min-recv-ping-interval-without-data=10000",
            "--grpc-keepalive-permit-without-calls=true",
            f"--http-address={LOOPBACK}",
            f"--http-port={ports.http}",
            f"--metrics-address={LOOPBACK}",
            f"--metrics-port={ports.metrics}",
            "--allow-gpu-metrics=false",
            "--pinned-memory-pool-byte-size=0",
            *(f"--backend-config=python,{key}={value}" for key, value in python.items()),
            *(f"--trace-config={setting}" for setting in _tracing(traces)),
        ]

    def environment(self, *, brief: bool = False) -> dict[str, str]:
        """Environment of the server: the stub finds our Python packages, all find their libraries.

        The stub embeds Python, which looks for its home through ``python3`` on PATH.

        Args:
            brief: models leave out what makes them faster and takes seconds to compile.
        """
        environment = dict(os.environ)
        libraries = [str(self.libraries)]
        if self.libpython is not None:
            libraries.append(str(self.libpython.parent))
        inherited = environment.get("LD_LIBRARY_PATH")
        environment["LD_LIBRARY_PATH"] = ":".join([*libraries, *([inherited] if inherited else [])])
        executables = str(Path(sys.executable).parent)
        environment["PATH"] = f"{executables}:{environment.get('PATH', os.defpath)}"
        environment.pop("PYTHONHOME", None)
        if sys.prefix != sys.base_prefix:
            environment["VIRTUAL_ENV"] = sys.prefix
        environment["PYTHONDONTWRITEBYTECODE"] = "1"
        if brief:
            environment["MUSETALK_BRIEF"] = "1"
        for name, value in MALLOC.items():
            environment.setdefault(name, value)
        return environment


def find_distribution() -> Distribution:
    """Find the tritonserver of the ``nvidia-pytriton`` wheel.

    Returns:
        Its files.

    Raises:
        SetupError: the wheel, the stub of this Python version or libpython is missing.
    """
    spec = importlib.util.find_spec("pytriton")
    if spec is None or not spec.submodule_search_locations:
        raise SetupError(
            "the embedded tritonserver is not installed",
            remedy="pip install --no-deps nvidia-pytriton, or set MUSETALK_TRITON=host:port",
        )
    package = Path(spec.submodule_search_locations[0])
    server = package / "tritonserver"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    found = Distribution(
        binary=server / "bin" / "tritonserver",
        libraries=package.parent / "nvidia_pytriton.libs",
        python_backend=server / "backends" / "python",
        stub=server / "python_backend_stubs" / version / STUB,
        libpython=find_libpython(),
    )
    for path in (found.binary, found.libraries, found.python_backend, found.stub):
        if not path.exists():
            raise SetupError(
                f"the embedded tritonserver has no {path.relative_to(package.parent)}",
                remedy="reinstall nvidia-pytriton; it supports Python 3.8 to 3.13",
            )
    return found


def find_libpython() -> Path | None:
    """Find the shared library of this Python version, which Triton's stub links to.

    Returns:
        Its path, or None when the system's loader finds it by itself.

    Raises:
        SetupError: there is none.
    """
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    name = f"libpython{version}.so.1.0"
    for folder in (sysconfig.get_config_var("LIBDIR"), f"{sys.base_prefix}/lib"):
        if folder and (Path(folder) / name).is_file():
            return Path(folder) / name
    try:
        ctypes.CDLL(name)
    except OSError as error:
        raise SetupError(
            f"{name} is missing: the embedded tritonserver runs Python through it",
            remedy=f"apt-get install libpython{version}, or a Python built with --enable-shared",
        ) from error
    return None


def _no_caches(_folder: str, names: list[str]) -> set[str]:
    """Leave compiled files behind when a backend is copied."""
    return {name for name in names if name == "__pycache__"}


def _tracing(endpoint: str | None) -> tuple[str, ...]:
    if endpoint is None:
        return ()
    return (
        "mode=opentelemetry",
        "level=TIMESTAMPS",
        "rate=0",  # nothing of its own accord; it always continues a caller's trace
        f"opentelemetry,url={endpoint}",
        "opentelemetry,resource=service.name=triton",
    )

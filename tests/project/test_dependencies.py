"""What the code imports, what pyproject.toml declares and what constraints.txt locks agree."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest brings it along there

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OURS = {"orchestrator", "export", "loadtests", "tests"}
# The tritonserver's Python backend gives this module to model.py; no package holds it.
GIVEN_BY_TRITON = {"triton_python_backend_utils", "c_python_backend_utils"}
# Promised by a declared package: fastapi, pydantic-settings, tritonclient, pytest, piper-tts,
# typed-ffmpeg.
BROUGHT_ALONG = {
    "starlette", "pydantic", "protobuf", "packaging", "onnxruntime", "typed-ffmpeg-v9",
}  # fmt: skip
HEAVY = {"torch", "diffusers", "transformers", "onnx", "onnxscript", "onnxruntime"}


def declared(*extras: str) -> set[str]:
    lines = list(PROJECT["dependencies"])
    for extra in extras:
        lines += PROJECT["optional-dependencies"][extra]
    return {canonicalize_name(Requirement(line).name) for line in lines}


def sources(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]


@cache
def holders() -> Mapping[str, list[str]]:
    return importlib.metadata.packages_distributions()


def packages(module: str) -> set[str]:
    """Distributions that hold a module; more than one for a namespace such as google."""
    return {canonicalize_name(name) for name in holders().get(module, [])}


@pytest.mark.parametrize(
    ("folder", "extras"),
    [
        ("orchestrator", ["piper", "telemetry"]),
        ("export", ["export", "demo", "piper"]),
        ("loadtests", ["export", "loadtests", "dev"]),
        ("tests", ["export", "demo", "telemetry", "piper", "dev", "loadtests"]),
    ],
)
def test_every_import_is_declared(folder: str, extras: list[str]) -> None:
    allowed = declared(*extras)
    undeclared = {
        f"{path.relative_to(ROOT)}: {module}"
        for path in sources(folder)
        for module in imported(path)
        if module not in sys.stdlib_module_names | OURS | GIVEN_BY_TRITON | {"tomli"}
        and not packages(module) & (allowed | BROUGHT_ALONG)
        and not path.with_name(f"{module}.py").exists()
    }
    assert not undeclared


def test_serving_code_imports_no_training_framework() -> None:
    found = {
        f"{path.relative_to(ROOT)}: {module}"
        for path in sources("orchestrator")
        for module in imported(path)
        if module in HEAVY and path.name != "piper_worker.py"
    }
    assert not found


def test_only_the_workers_import_piper() -> None:
    users = {
        str(path.relative_to(ROOT))
        for path in sources("orchestrator") + sources("export")
        if "piper" in set(imported(path))
    }
    assert users == {"orchestrator/speech/piper_worker.py", "export/demo/voice_worker.py"}


def test_the_orchestrator_runs_where_torch_is_not_installed() -> None:
    """Every serving module is imported in a process in which torch cannot be."""
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in sources("orchestrator")
        if "backends" not in path.parts and path.name not in ("piper_worker.py", "__main__.py")
    ]
    code = (
        "import importlib, sys\n"
        f"for name in {sorted(HEAVY - {'onnxruntime'})!r}: sys.modules[name] = None\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        "import export.cli, export.fetch\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


def locked() -> dict[str, list[Requirement]]:
    found: dict[str, list[Requirement]] = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            requirement = Requirement(line)
            found.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return found


EXTRAS = ["piper", "export", "demo", "telemetry", "gpu", "loadtests", "dev"]


@pytest.mark.parametrize("version", ["3.10", "3.11", "3.12", "3.13"])
def test_the_lock_holds_every_declared_package(version: str) -> None:
    environment = {
        "python_version": version,
        "python_full_version": f"{version}.0",
        "sys_platform": "linux",
        "platform_machine": "x86_64",
        "platform_python_implementation": "CPython",
        "implementation_name": "cpython",
    }
    lines = list(PROJECT["dependencies"])
    for extra in EXTRAS:
        lines += PROJECT["optional-dependencies"][extra]
    lock = locked()
    for line in lines:
        wanted = Requirement(line)
        if wanted.marker and not wanted.marker.evaluate(environment):
            continue
        pins = [
            pin
            for pin in lock.get(canonicalize_name(wanted.name), [])
            if pin.marker is None or pin.marker.evaluate(environment)
        ]
        assert len(pins) == 1, f"{wanted.name} on {version}: {[str(pin) for pin in pins]}"
        (specifier,) = pins[0].specifier
        assert specifier.operator == "=="
        assert wanted.specifier.contains(specifier.version, prereleases=True), line


def test_this_environment_is_the_locked_one() -> None:
    differing = {}
    for name, pins in locked().items():
        try:
            installed = importlib.metadata.version(name).split("+")[0]
        except importlib.metadata.PackageNotFoundError:
            continue
        wanted = [
            next(iter(pin.specifier)).version
            for pin in pins
            if pin.marker is None or pin.marker.evaluate()
        ]
        if installed not in wanted:
            differing[name] = (installed, wanted)
    assert not differing, "run make setup-dev, or make lock"


def test_the_makefile_pins_the_embedded_triton() -> None:
    makefile = (ROOT / "Makefile").read_text()
    (version,) = re.findall(r"nvidia-pytriton==(\S+)", makefile)
    assert importlib.metadata.version("nvidia-pytriton") == version
    # Alone: its own pins (an old numpy) would decide ours.
    assert re.search(r"--no-deps \$\(PYTRITON\)", makefile)

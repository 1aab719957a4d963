"""Dockerfiles and their scripts: clean for their linters, whole, and their steps work."""

from __future__ import annotations

import fnmatch
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))
SCRIPTS = sorted((ROOT / "docker").glob("*.sh"))
BIN = Path(sys.executable).parent


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_dockerfile_is_clean(path: Path) -> None:
    done = run(str(BIN / "hadolint"), str(path))
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_script_is_clean(path: Path) -> None:
    done = run(str(BIN / "shellcheck"), str(path))
    assert done.returncode == 0, done.stdout


def ignored(path: str) -> bool:
    """Whether .dockerignore keeps a path of ours out of the build context; the last rule wins."""
    out = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        rule = line.strip()
        if not rule or rule.startswith("#"):
            continue
        wanted = rule.removeprefix("!")
        # A rule for a folder is one for what is in it, and the folder of what is let in is seen.
        if fnmatch.fnmatch(path, wanted) or path.startswith(f"{wanted}/"):
            out = not rule.startswith("!")
    return out


def copied() -> list[tuple[str, str]]:
    found = []
    for path in DOCKERFILES:
        for line in re.findall(r"^COPY (?!--from)(.+)$", path.read_text(), re.M):
            found += [(path.name, source) for source in line.split()[:-1]]
    return found


@pytest.mark.parametrize(("dockerfile", "source"), copied())
def test_what_is_copied_exists_and_is_in_the_context(dockerfile: str, source: str) -> None:
    assert (ROOT / source).exists(), dockerfile
    assert not ignored(source), dockerfile


def test_nothing_private_is_in_the_context() -> None:
    for path in (".git", ".env", "secrets/api_keys", "tests/conftest.py", "export/demo/head.py"):
        assert ignored(path), path


def test_images_run_as_a_number_and_not_as_root() -> None:
    for path in DOCKERFILES:
        stages = re.split(r"^FROM .*$", path.read_text(), flags=re.M)
        users = re.findall(r"^USER (.+)$", stages[-1], re.M)
        assert users[-1:] == ["10001:10001"], path.name


def test_the_server_is_recent_enough() -> None:
    """Before 26.08 a queue time-out made the batcher slow until the model was loaded again."""
    text = (ROOT / "docker" / "triton.Dockerfile").read_text()
    found = re.search(r"^ARG TRITON=(\d+)\.(\d+)$", text, re.M)
    assert found is not None
    assert (int(found[1]), int(found[2])) >= (26, 8)


def test_tritons_options_exist(tmp_path: Path) -> None:
    """The options that serve-triton.sh gives are those of a real tritonserver."""
    from orchestrator.inference.distribution import find_distribution

    given = re.findall(r"(--[a-z0-9-]+)", (ROOT / "docker" / "serve-triton.sh").read_text())
    distribution = find_distribution()
    done = subprocess.run(
        [str(distribution.binary), "--help"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={"LD_LIBRARY_PATH": str(distribution.libraries)},
    )
    known = set(re.findall(r"(--[a-z0-9-]+)", done.stdout + done.stderr))
    assert len(known) > 50
    assert set(given) - {"--exit-timeout-secs"} <= known | {"--model-repository"}


def test_building_without_weights_says_what_to_do(tmp_path: Path) -> None:
    if shutil.which("flock") is None:
        pytest.skip("flock is not installed")
    done = subprocess.run(
        [str(ROOT / "docker/build-repository.sh"), str(tmp_path / "c"), str(tmp_path / "r"), "cpu"],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 1
    assert "MUSETALK_ACCEPT_LICENCES=yes" in done.stderr

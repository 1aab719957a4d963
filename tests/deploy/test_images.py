"""Dockerfiles and their scripts: clean for their linters, whole, and their steps work."""

from __future__ import annotations

import fnmatch
import json
import os
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


def instructions(dockerfile: Path) -> list[tuple[str, str]]:
    """Each instruction of a Dockerfile with its arguments, continued lines joined."""
    text = re.sub(r"^\s*#.*\n", "", dockerfile.read_text(), flags=re.M)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [(word, rest.strip()) for word, _, rest in (x.partition(" ") for x in lines) if word]


class Stage:
    """What a build does, done in a folder: its root is ``root``, the interpreter is ours."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root
        self.entry: list[str] = []
        self.variables = {"PATH": f"{BIN}:/usr/bin:/bin"}
        # How this machine reaches its package index, which is not the image's business.
        for name, value in os.environ.items():
            if name.startswith("PIP_") or name.upper().endswith(("_PROXY", "_CERT_FILE")):
                self.variables[name] = value

    def inside(self, text: str) -> str:
        """Absolute paths of the image as those of this folder."""
        return re.sub(r"(?<![\w.}])/(opt|src|var)\b", rf"{self.root}/\1", text)

    def do(self, word: str, rest: str) -> None:
        if word == "WORKDIR":
            self.folder = Path(self.inside(rest))
            self.folder.mkdir(parents=True, exist_ok=True)
        elif word in ("ENV", "ARG"):
            for pair in rest.split():
                name, _, value = pair.partition("=")
                value = value.replace("$PATH", self.variables["PATH"])
                self.variables[name] = self.inside(value)
        elif word == "COPY" and not rest.startswith("--from"):
            *sources, target = rest.split()
            for source in sources:
                self.copy(source, self.folder / target)
        elif word in ("ENTRYPOINT", "CMD"):
            self.entry += json.loads(rest)
        elif word == "RUN" and "useradd" not in rest:
            subprocess.run(
                ["/bin/sh", "-ec", self.inside(rest)],
                cwd=self.folder,
                env=self.variables,
                check=True,
                timeout=600,
            )

    def copy(self, source: str, target: Path) -> None:
        origin = ROOT / source
        if origin.is_file():
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy(origin, target)
            return
        for path in origin.rglob("*"):
            name = path.relative_to(ROOT).as_posix()
            if path.is_file() and not ignored(name) and "__pycache__" not in name:
                to = target / path.relative_to(origin)
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, to)


@pytest.mark.slow
@pytest.mark.skipif(
    os.environ.get("MUSETALK_TEST_IMAGE") != "1",
    reason="installs every package of the image: set MUSETALK_TEST_IMAGE=1",
)
def test_the_orchestrators_steps_work_in_a_plain_environment(tmp_path: Path) -> None:
    """Every instruction but those that make a user, in order; then the image's own command."""
    stage = Stage(tmp_path)
    for word, rest in instructions(ROOT / "docker" / "orchestrator.Dockerfile"):
        stage.do(word, rest)
    assert stage.entry == ["musetalk", "serve"]

    def inside(*command: str) -> str:
        done = subprocess.run(
            [tmp_path / "opt/musetalk/bin" / command[0], *command[1:]],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            cwd=tmp_path,
            env=stage.variables,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "--port" in inside(*stage.entry, "--help")
    where = inside(
        "python",
        "-c",
        "import orchestrator.serve as s, sys; print(s.__file__, 'torch' in sys.modules)",
    ).split()
    assert where[0].startswith(str(tmp_path)), "the package of the work tree was found instead"
    assert where[1] == "False"
    packages = {line.partition("==")[0].lower() for line in inside("pip", "freeze").splitlines()}
    assert {"fastapi", "dbos", "piper-tts", "opentelemetry-sdk"} <= packages
    assert not packages & {"torch", "av", "nvidia-pytriton", "transformers", "diffusers"}
    print(f"{len(packages)} packages, no torch")  # noqa: T201

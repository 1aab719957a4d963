"""Every command of the README is understood, run by a test, and its tables are true."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import urllib.request
import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import typer.main
from starlette.routing import Match

from loadtests.ports import free_port
from orchestrator import cli
from orchestrator.api.http import Service, create_app
from orchestrator.settings import ROOT, Settings
from orchestrator.telemetry import Telemetry

README = (ROOT / "README.md").read_text()
BIN = Path(sys.executable).parent

# Where each command line is run for real, through the same entry point.
RUN_BY = {
    "musetalk doctor": "tests/project/test_readme.py",
    "musetalk export fetch": "tests/export/test_fetch.py",
    "musetalk export init": "tests/project/test_readme.py",
    "musetalk export build": "tests/export/test_build.py",
    "musetalk export verify": "tests/export/test_golden.py",
    "musetalk triton": "tests/inference/test_lifecycle.py",
    "musetalk serve": "tests/project/test_readme.py",
    "musetalk speak": "tests/project/test_readme.py",
    "musetalk avatar": "tests/project/test_readme.py",
    "musetalk keys": "tests/project/test_readme.py",
    "MUSETALK_LLM_BASE_URL": "tests/e2e/test_service.py",
    "make setup-dev": "tests/project/test_readme.py",
    "make serve": "tests/project/test_readme.py",
    "make demo": "tests/project/test_readme.py",
    "make doctor": "tests/project/test_readme.py",
    "make check": ".ci/run",
    "make test": ".ci/run",
    "make bench": "tests/project/test_readme.py",
    "make load": "tests/project/test_readme.py",
    "curl": "tests/project/test_readme.py",
}


def blocks() -> list[list[str]]:
    """The shell blocks: their commands, continued lines joined, remarks cut off."""
    found = []
    for text in re.findall(r"^```(?:bash|sh|shell|console)\n(.*?)^```", README, re.M | re.S):
        lines = text.replace("\\\n", " ").splitlines()
        commands = [re.sub(r"\s+# .*", "", line).strip() for line in lines]
        found.append([command for command in commands if command])
    return found


COMMANDS = [command for block in blocks() for command in block]


def targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))


def parse(arguments: list[str]) -> None:
    """Let the command line's own parser judge, without running anything.

    Commands are asked what they can do, not what they are: Typer brings its own Click along.
    """
    if not any(group.name == "export" for group in cli.app.registered_groups):
        cli._add_export()
    command: Any = typer.main.get_command(cli.app)
    context = command.make_context("musetalk", list(arguments))
    while hasattr(command, "resolve_command"):
        rest = [*context._protected_args, *context.args]
        name, command, arguments = command.resolve_command(context, rest)
        context = command.make_context(name, arguments, parent=context)


def route(url: str, method: str) -> None:
    service = Service(Settings(_env_file=None), Telemetry(), None)  # type: ignore[arg-type]
    path = "/" + url.split("/", 3)[3]
    scope = {"type": "http", "method": method, "path": path, "headers": [], "root_path": ""}
    assert any(item.matches(scope)[0] == Match.FULL for item in create_app(service).routes)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_understood(command: str) -> None:
    program, *arguments = shlex.split(command)
    while "=" in program:
        assert program.partition("=")[0].removeprefix("MUSETALK_").lower() in Settings.model_fields
        program, *arguments = arguments
    if program == "make":
        assert arguments[0] in targets()
        done = subprocess.run(
            ["make", "-n", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
    elif program == "musetalk":
        parse(arguments)
    elif program == "curl":
        posts = {"-d", "-F"} & set(arguments)
        (url,) = [word for word in arguments if word.startswith("http")]
        route(url, "POST" if posts else "GET")
    else:
        pytest.fail(f"nothing checks {program}: add it here")


def test_wrong_commands_would_be_noticed() -> None:
    for wrong in ("speak hello --colour red", "export fetsh", "avatar add"):
        with pytest.raises(Exception) as caught:
            parse(shlex.split(wrong))
        assert getattr(caught.value, "exit_code", None) == 2, caught.value
    with pytest.raises(AssertionError):
        route("http://localhost:8080/v2/speak", "POST")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_run_by_a_test(command: str) -> None:
    (test,) = [test for prefix, test in RUN_BY.items() if command.startswith(prefix)]
    assert (ROOT / test).is_file()


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_settings_table_is_complete_and_true() -> None:
    table = (ROOT / "docs" / "settings.md").read_text()
    rows = dict(re.findall(r"^\| `MUSETALK_(\w+)` \| (.*?) \|", table, re.M))
    fields = Settings.model_fields
    assert set(rows) == {name.upper() for name in fields}
    for name, field in fields.items():
        shown = rows[name.upper()]
        if not shown.startswith("`"):
            assert field.default in (None, ()), name
            continue
        default = str(field.default)
        default = default.replace(f"{ROOT}/", "").replace(str(Path.home()), "~")
        assert shown.strip("`") == default.removesuffix(".0"), name


def test_the_commands_of_make_help_exist() -> None:
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, timeout=30)
    named = set(re.findall(r"make ([a-z]+)", done.stdout))
    assert {"serve", "demo", "test", "check", "bench"} <= named <= targets()


def test_a_machine_that_lacks_something_stops_make(tmp_path: Path) -> None:
    """make says so before it makes an environment."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    (tmp_path / "orchestrator").mkdir()
    source = (ROOT / "orchestrator" / "preflight.py").read_text()
    (tmp_path / "orchestrator" / "preflight.py").write_text(
        source.replace("GLIBC = (2, 35)", "GLIBC = (9, 99)")
    )
    done = subprocess.run(
        ["make", "setup"], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode != 0
    assert "glibc" in done.stderr
    assert not (tmp_path / ".venv").exists()


# Run for real


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory, portraits_ready: Callable[[Path], Path]
) -> Path:
    """A working directory with the files that the README's reader has."""
    folder = tmp_path_factory.mktemp("readme")
    portraits_ready(folder / "cache")
    frames = np.load(ROOT / "tests" / "golden" / "chain.npz")["frames"]
    cv2.imwrite(str(folder / "portrait.jpg"), frames[0])
    pcm = np.load(ROOT / "tests" / "golden" / "mel.npz")["pcm16"]
    with wave.open(str(folder / "speech.wav"), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes(pcm[:16000].tobytes())
    return folder


def environment(place: Path, **more: str) -> dict[str, str]:
    path = f"{BIN}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "MUSETALK_CACHE_DIR": str(place / "cache"), **more}


def shell(command: str, place: Path, **more: str) -> str:
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=place,
        capture_output=True,
        text=True,
        timeout=240,
        env=environment(place, **more),
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def commands(prefix: str) -> list[str]:
    found = [command for command in COMMANDS if command.startswith(prefix)]
    assert found
    return found


def test_doctor_runs(place: Path) -> None:
    text = shell("musetalk doctor || [ $? = 1 ]", place)
    assert "Triton" in text


def test_keys_come_and_go(place: Path) -> None:
    add, show, remove = commands("musetalk keys")
    made = shell(add, place)
    assert "website" in shell(show, place)
    (key,) = [word for word in made.split() if len(word) > 30]
    (file,) = [path for path in (place / "cache").rglob("*keys*") if path.is_file()]
    assert key not in file.read_text()
    shell(remove, place)
    assert "website" not in shell(show, place)


def test_random_weights_are_written(place: Path) -> None:
    (init,) = commands("musetalk export init")
    shell(init, place)
    assert (place / "checkpoints" / "random" / "musetalkV15" / "unet.pth").is_file()


@contextlib.contextmanager
def running(command: str, place: Path, url: str, **more: str) -> Iterator[None]:
    """A command that serves until Ctrl-C, from its readiness on."""
    output = place / "output.log"
    with output.open("w") as log:
        process = subprocess.Popen(
            shlex.split(command),
            cwd=place,
            stdout=log,
            stderr=log,
            env=environment(place, **more),
        )
    try:
        end = time.monotonic() + 120
        while True:
            assert process.poll() is None, output.read_text()
            assert time.monotonic() < end, output.read_text()
            with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=2):
                break
            time.sleep(0.25)
        yield
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        finally:
            process.kill()


@pytest.fixture(scope="module")
def triton(place: Path) -> Iterator[str]:
    """``musetalk triton`` as the README starts it, on free ports."""
    grpc, http = free_port(), free_port()
    (command,) = commands("musetalk triton")
    command = command.replace("model_repository", str(ROOT / "model_repository"))
    command = command.replace("8001", str(grpc))
    ready = f"http://127.0.0.1:{http}/v2/health/ready"
    with running(f"{BIN}/{command} --http-port {http}", place, ready):
        yield f"127.0.0.1:{grpc}"


def recipe(target: str) -> str:
    """What make would run."""
    done = subprocess.run(
        ["make", "-n", target], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("target", "start"),
    [("serve", "musetalk serve"), ("demo", "musetalk speak"), ("doctor", "musetalk doctor")],
)
def test_make_runs_the_commands_that_are_tested(target: str, start: str) -> None:
    command = recipe(target).removeprefix(".venv/bin/")
    assert command.startswith(start)
    parse(shlex.split(command)[1:])


@pytest.mark.parametrize("target", ["bench", "load"])
def test_make_runs_a_module_that_exists(target: str) -> None:
    (module,) = re.findall(r"-m (\S+)", recipe(target))
    assert (ROOT / module.replace(".", "/")).with_suffix(".py").is_file()


@pytest.mark.slow
@pytest.mark.triton
def test_avatars_videos_and_the_service_as_described(place: Path, triton: str) -> None:
    added, *others = commands("musetalk avatar")
    removed = others.pop()
    shell(added, place, MUSETALK_TRITON=triton)
    assert "ana" in shell(others[0], place)
    demo = recipe("demo").removeprefix(".venv/bin/")
    for command in [*others[1:], *commands("musetalk speak"), demo]:
        shell(command, place, MUSETALK_TRITON=triton)
    for name in ("demo.mp4", "morning.mp4", "speech.mp4", "me.mp4", "ana.mp4", "ana.png"):
        assert (place / "out" / name).stat().st_size > 1000, name

    load = recipe("load").replace("out/load", str(place / "load")).split("python ", 1)[1]
    few = f"python {load} --users 1 --seconds 3 --cache {place / 'cache'}"
    few += " --on-time 0 --first-frame 60"  # the machine is busy with tests
    shell(few, ROOT)
    assert (place / "load" / "report.html").is_file()

    port = free_port()
    (serve,) = [line for line in commands("musetalk serve") if "--triton" in line]
    serve = serve.replace("localhost:8001", triton)
    ready = f"http://127.0.0.1:{port}/readyz"
    with running(f"{BIN}/{serve}", place, ready, MUSETALK_PORT=str(port)):
        for command in commands("curl"):
            shell(command.replace("localhost:8080", f"127.0.0.1:{port}"), place)
    for name in ("hello.mp4", "reply.mp4"):
        assert (place / name).read_bytes()[4:8] == b"ftyp"

    shell(removed, place)
    assert "ana" not in shell(others[0], place)

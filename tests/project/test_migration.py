"""What MIGRATION.md and SECURITY.md say is true, and their commands run."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main

from orchestrator import cli
from orchestrator.api.http import Service, create_app
from orchestrator.settings import ROOT, Settings
from orchestrator.telemetry import Telemetry

TEXTS = {name: (ROOT / name).read_text() for name in ("MIGRATION.md", "SECURITY.md")}
BIN = Path(sys.executable).parent

# Run for real elsewhere, through the same entry point and with the same options.
RUN_BY = {
    "musetalk export build": "tests/export/test_build.py",
    "musetalk export verify": "tests/export/test_golden.py",
    "musetalk serve": "tests/project/test_readme.py",
    "musetalk avatar": "tests/project/test_readme.py",
    "curl": "tests/project/test_readme.py",
}


def commands(name: str) -> list[str]:
    found = re.findall(r"^```bash\n(.*?)^```", TEXTS[name], re.M | re.S)
    return [line for block in found for line in block.splitlines() if line]


def parse(arguments: list[str]) -> None:
    if not any(group.name == "export" for group in cli.app.registered_groups):
        cli._add_export()
    command: Any = typer.main.get_command(cli.app)
    context = command.make_context("musetalk", list(arguments))
    while hasattr(command, "resolve_command"):
        rest = [*context._protected_args, *context.args]
        name, command, arguments = command.resolve_command(context, rest)
        context = command.make_context(name, arguments, parent=context)


@pytest.mark.parametrize("command", [line for name in TEXTS for line in commands(name)])
def test_every_command_is_understood(command: str) -> None:
    program, *arguments = shlex.split(command)
    if program == "musetalk":
        parse(arguments)
        return
    assert program == "curl"
    (url,) = [word for word in arguments if word.startswith("http")]
    service = Service(Settings(_env_file=None), Telemetry(), None)  # type: ignore[arg-type]
    assert "/" + url.split("/", 3)[3] in create_app(service).openapi()["paths"]


@pytest.mark.parametrize("command", commands("MIGRATION.md"))
def test_every_command_is_run_by_a_test(command: str) -> None:
    (test,) = [test for prefix, test in RUN_BY.items() if command.startswith(prefix)]
    assert (ROOT / test).is_file()


def test_the_commands_of_keys_run(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "MUSETALK_CACHE_DIR": str(tmp_path),
    }
    add, show, remove = commands("SECURITY.md")

    def run(command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            shlex.split(command),
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
        )

    made = run(add)
    assert re.fullmatch(r"mt_[0-9a-f]{12}_[\w-]{43}\n", made.stdout), made
    stored = (tmp_path / "keys.json").read_text()
    assert made.stdout.strip() not in stored
    assert (tmp_path / "keys.json").stat().st_mode & 0o077 == 0
    listed = run(show).stdout
    assert "ana" in listed and "of 600" in listed
    assert run(remove).returncode == 0
    assert "no keys" in run(show).stdout
    again = run(remove)
    assert again.returncode == 1 and "there is no key" in again.stderr


def test_the_settings_that_are_named_exist() -> None:
    fields = {f"MUSETALK_{name.upper()}" for name in Settings.model_fields}
    for name, text in TEXTS.items():
        assert set(re.findall(r"MUSETALK_[A-Z_]+", text)) <= fields, name


def test_links_lead_somewhere() -> None:
    for text in TEXTS.values():
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", text):
            assert (ROOT / target).exists(), target

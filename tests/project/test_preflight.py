"""The checks before installation, on machines described by hand."""

from __future__ import annotations

import ast
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import preflight
from orchestrator.preflight import Facts, Interpreter, choose, problems

GOOD = Interpreter("/usr/bin/python3", "3.11", True, True)
MACHINE = Facts("Linux", "x86_64", (2, 36), 50.0, "apt", False, (GOOD,))


def only(facts: Facts) -> str:
    found = problems(facts)
    assert len(found) == 1, found
    assert "\n" not in found[0]
    return found[0]


def test_a_good_machine_has_no_problem() -> None:
    assert problems(MACHINE) == []
    assert choose(MACHINE) == GOOD


def test_the_best_usable_interpreter_is_taken() -> None:
    newest = Interpreter("/usr/bin/python3.13", "3.13", True, True)
    tested = Interpreter("/usr/bin/python3.11", "3.11", True, True)
    broken = Interpreter("/opt/python3.11", "3.11", False, True)
    future = Interpreter("/usr/bin/python3", "3.14", True, True)
    assert choose(replace(MACHINE, interpreters=(future, broken, newest, tested))) == tested
    assert choose(replace(MACHINE, interpreters=(future, broken, newest))) == newest
    assert choose(replace(MACHINE, interpreters=(future, broken))) is None


@pytest.mark.parametrize(
    ("installer", "command"),
    [
        ("apt", "sudo apt-get install -y python3 python3-venv python3-dev"),
        ("dnf", "sudo dnf install -y python3.12 python3.12-libs"),
        ("zypper", "sudo zypper install -y python313 libpython3_13-1_0"),
        ("pacman", "sudo pacman -S --needed uv && uv python install 3.12"),
        ("", "install uv && uv python install 3.12"),
    ],
)
@pytest.mark.parametrize("version", [None, "3.9", "3.14"])
def test_no_supported_python(installer: str, command: str, version: str | None) -> None:
    found = () if version is None else (Interpreter("/usr/bin/python3", version, True, True),)
    line = only(replace(MACHINE, installer=installer, interpreters=found))
    assert line.startswith("no Python 3.10 to 3.13")
    assert command in line


@pytest.mark.parametrize(
    ("installer", "package"),
    [("apt", "libpython3.12"), ("dnf", "python3.12-libs"), ("zypper", "libpython3_12-1_0")],
)
def test_a_missing_shared_library_is_named_with_its_package(installer: str, package: str) -> None:
    bare = Interpreter("/usr/bin/python3.12", "3.12", False, True)
    line = only(replace(MACHINE, installer=installer, root=True, interpreters=(bare,)))
    assert "libpython3.12.so.1.0" in line
    assert package in line
    assert "sudo" not in line


def test_an_interpreter_built_by_hand_is_not_mended_by_packages() -> None:
    bare = Interpreter("/root/.pyenv/versions/3.12.1/bin/python", "3.12", False, True)
    line = only(replace(MACHINE, interpreters=(bare,)))
    assert "--enable-shared" in line
    assert "apt-get" not in line


def test_a_missing_venv_module_is_named_with_its_package() -> None:
    bare = Interpreter("/usr/bin/python3.11", "3.11", True, False)
    line = only(replace(MACHINE, interpreters=(bare,)))
    assert "no venv module" in line
    assert "python3.11-venv" in line


@pytest.mark.parametrize(
    ("system", "machine"), [("Linux", "aarch64"), ("Darwin", "arm64"), ("Windows", "AMD64")]
)
def test_another_processor_or_system_is_the_only_thing_said(system: str, machine: str) -> None:
    facts = Facts(system, machine, None, 0.1, "", False, ())
    assert "x86-64 Linux only" in only(facts)


@pytest.mark.parametrize("glibc", [None, (2, 31), (2, 34)])
def test_an_old_or_missing_glibc(glibc: tuple[int, int] | None) -> None:
    assert "needs 2.35" in only(replace(MACHINE, glibc=glibc))


def test_a_full_disk() -> None:
    assert "1.5 GB free here" in only(replace(MACHINE, free_gb=1.5))


@given(
    st.builds(
        Facts,
        st.just("Linux"),
        st.just("x86_64"),
        st.none() | st.tuples(st.integers(2, 3), st.integers(0, 60)),
        st.floats(0, 1000),
        st.sampled_from(["apt", "dnf", "zypper", "pacman", ""]),
        st.booleans(),
        st.lists(
            st.builds(
                Interpreter,
                st.sampled_from(["/usr/bin/python3", "/opt/bin/python"]),
                st.sampled_from(["3.8", "3.10", "3.11", "3.12", "3.13", "3.14"]),
                st.booleans(),
                st.booleans(),
            ),
            max_size=4,
        ).map(tuple),
    )
)
def test_every_machine_gets_an_interpreter_or_a_remedy(facts: Facts) -> None:
    found = problems(facts)
    assert found or choose(facts) is not None
    for line in found:
        assert "\n" not in line
        assert ": " in line


def test_this_machine_passes_with_the_systems_python() -> None:
    done = subprocess.run(
        [sys.executable, preflight.__file__], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).exists()


def test_it_runs_on_old_pythons_without_packages() -> None:
    tree = ast.parse(Path(preflight.__file__).read_text(), feature_version=(3, 8))
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert imported <= sys.stdlib_module_names

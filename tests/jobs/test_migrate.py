"""``musetalk migrate``: what the Job of the Kubernetes manifests runs before new orchestrators."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from dbos._migration import get_dbos_migrations
from sqlalchemy import create_engine, inspect, text

from orchestrator.jobs.database import connect
from orchestrator.settings import ROOT


def migrate(url: str | None, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if "MUSETALK_" not in key}
    environment |= {"MUSETALK_CACHE_DIR": str(folder), "PYTHONPATH": str(ROOT)}
    if url is not None:
        environment["MUSETALK_DATABASE_URL"] = url
    return subprocess.run(
        [sys.executable, "-m", "orchestrator.cli", "migrate"],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def tables(url: str) -> dict[str, list[str]]:
    """Columns of every table, by schema and name."""
    engine = connect(url)
    try:
        seen = inspect(engine)
        return {
            f"{schema}.{table}": sorted(c["name"] for c in seen.get_columns(table, schema))
            for schema in ("public", "dbos")
            for table in seen.get_table_names(schema)
        }
    finally:
        engine.dispose()


@pytest.fixture
def empty(postgres: str) -> str:
    """A database of this test alone."""
    url = postgres.replace("/videos?", "/migrated?")
    assert url != postgres
    engine = create_engine(
        postgres.replace("postgresql://", "postgresql+psycopg://"), isolation_level="AUTOCOMMIT"
    )
    with engine.connect() as connection:
        connection.execute(text("DROP DATABASE IF EXISTS migrated"))
        connection.execute(text("CREATE DATABASE migrated"))
    engine.dispose()
    return url


def test_the_first_run_creates_the_second_changes_nothing(empty: str, tmp_path: Path) -> None:
    first = migrate(empty, tmp_path)
    assert (first.returncode, first.stdout) == (0, "the database is up to date\n"), first.stderr
    made = tables(empty)
    ours = ("musetalk_videos", "musetalk_leases", "musetalk_usage")
    assert {"dbos.workflow_status", *(f"public.{name}" for name in ours)} <= set(made)

    assert migrate(empty, tmp_path).returncode == 0
    assert tables(empty) == made


def test_an_older_schema_is_upgraded_and_keeps_its_rows(empty: str, tmp_path: Path) -> None:
    """Older: without the leases, the workflow engine's tables as its first migration left them."""
    assert migrate(empty, tmp_path).returncode == 0
    made = tables(empty)
    engine = connect(empty)
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE musetalk_leases"))
        connection.execute(text("DROP SCHEMA dbos CASCADE"))
        connection.execute(text("CREATE SCHEMA dbos"))
        connection.execute(text("CREATE TABLE dbos.dbos_migrations (version BIGINT PRIMARY KEY)"))
        first, *_ = get_dbos_migrations("dbos", True)
        connection.execute(text(first))
        connection.execute(text("INSERT INTO dbos.dbos_migrations VALUES (1)"))
        connection.execute(
            text(
                "INSERT INTO musetalk_videos (id, owner, status, stage, progress, created, updated,"
                " used_until, attempts, request, fingerprint)"
                " VALUES ('old', 'anna', 'queued', 'queued', 0, 1, 1, 1, 0, '{}', 'x')"
            )
        )
    engine.dispose()

    done = migrate(empty, tmp_path)
    assert done.returncode == 0, done.stderr
    assert tables(empty) == made
    engine = connect(empty)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT id FROM musetalk_videos")).scalar_one() == "old"
    engine.dispose()


def test_without_a_server_it_says_so_in_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    done = migrate(f"postgresql://anna:secret@127.0.0.1:{port}/videos", tmp_path)
    assert done.returncode == 1
    assert "cannot be used" in done.stderr
    assert "check MUSETALK_DATABASE_URL and that the database runs" in done.stderr
    assert "secret" not in done.stderr
    assert "Traceback" not in done.stderr


def test_without_a_database_it_says_that_none_is_needed(tmp_path: Path) -> None:
    done = migrate(None, tmp_path)
    assert done.returncode == 1
    assert "SQLite needs no migration" in done.stderr

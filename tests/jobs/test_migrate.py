"""``musetalk migrate``: what the Job of the Kubernetes manifests runs before new orchestrators."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from dbos._migration import get_dbos_migrations
from sqlalchemy import Engine, create_engine, inspect, make_url, text

import orchestrator.api.usage  # noqa: F401 -- its table is one of the service's
from loadtests.ports import free_port
from orchestrator.jobs.order import Order
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


def plain(url: str) -> Engine:
    """The database, opened by somebody who makes no tables."""
    return create_engine(make_url(url).set(drivername="postgresql+psycopg"))


def tables(url: str) -> dict[str, list[str]]:
    """Columns of every table, by schema and name."""
    engine = plain(url)
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
    engine = plain(empty)
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
    engine = plain(empty)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT id FROM musetalk_videos")).scalar_one() == "old"
    engine.dispose()


async def test_jobs_that_wait_and_run_outlive_an_upgrade(
    empty: str,
    tmp_path: Path,
    opened: Any,
    wait: Any,
    inference: Any,
    responder: Any,
    seconds_made: list[tuple[str, float]],
) -> None:
    """The older version: without the usage, the leases and a column of the jobs and its index."""
    made = {"database_url": empty, "max_videos": 1}
    inference.delay = 60.0
    async with opened(**made) as videos:
        jobs = [await videos.create("anna", Order(message=f"Number {n}.")) for n in range(3)]
        for _ in range(1500):
            if inference.running:
                break
            await asyncio.sleep(0.02)
        assert inference.running
    before = tables(empty)
    engine = plain(empty)
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE musetalk_usage, musetalk_leases"))
        connection.execute(text("ALTER TABLE musetalk_videos DROP COLUMN cache_key"))
    engine.dispose()

    done = await asyncio.to_thread(migrate, empty, tmp_path)
    assert done.returncode == 0, done.stderr
    assert tables(empty) == before
    inference.delay = 0.0
    async with opened(**made) as videos:
        for job in jobs:
            assert (await wait(videos, job)).status == "succeeded"
    assert sorted(responder.messages) == [f"Number {n}." for n in range(3)]
    assert len(seconds_made) == 3


def test_without_a_server_it_says_so_in_one_line(tmp_path: Path) -> None:
    port = free_port()
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

"""Tables of an older version, and records of a newer one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from orchestrator.api import usage  # noqa: F401 -- its table is one of the metadata's
from orchestrator.errors import SetupError
from orchestrator.jobs import schema
from orchestrator.jobs.database import METADATA, connect, sqlite_url
from orchestrator.jobs.job import Job, Request
from orchestrator.jobs.leases import Leases
from orchestrator.jobs.ledger import Ledger

FIRST = """
CREATE TABLE musetalk_leases (
    name VARCHAR(200) NOT NULL,
    holder VARCHAR(200) NOT NULL,
    until DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (name)
);
CREATE TABLE musetalk_videos (
    id VARCHAR(64) NOT NULL,
    owner VARCHAR(200) NOT NULL,
    status VARCHAR(20) NOT NULL,
    stage VARCHAR(20) NOT NULL,
    progress DOUBLE PRECISION NOT NULL,
    created DOUBLE PRECISION NOT NULL,
    updated DOUBLE PRECISION NOT NULL,
    expires DOUBLE PRECISION,
    used_until DOUBLE PRECISION NOT NULL,
    attempts INTEGER NOT NULL,
    request TEXT NOT NULL,
    fingerprint VARCHAR(64) NOT NULL,
    idempotency_key VARCHAR(200),
    cache_key VARCHAR(64),
    result TEXT,
    error TEXT,
    PRIMARY KEY (id),
    UNIQUE (owner, idempotency_key)
);
CREATE INDEX musetalk_videos_cache ON musetalk_videos (cache_key);
CREATE INDEX musetalk_videos_owner ON musetalk_videos (owner, created);
"""
"""The first version's tables, as it made them. This text never changes."""

WAITING = """
INSERT INTO musetalk_videos
    (id, owner, status, stage, progress, created, updated, used_until, attempts, fingerprint,
     idempotency_key, request)
VALUES
    ('{id}', 'me', '{status}', '{status}', 0, 1, 1, 0, 0, 'f', '{id}',
     '{{"kind": "text", "avatar": "ada", "fps": 25, "profile": "economy",
        "text": "This is {id}.", "samples": 0, "digest": ""}}')
"""
"""A job as the first version noted it. This, too, never changes."""


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database without our tables."""
    if request.param == "sqlite":
        yield sqlite_url(tmp_path / "old.sqlite")
        return
    url = request.getfixturevalue("postgres")
    forget(url)
    yield url
    forget(url)


def plain(url: str) -> sa.Engine:
    """The database, opened by somebody who makes no tables."""
    parsed = sa.make_url(url)
    if parsed.get_backend_name() == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
    return sa.create_engine(parsed)


def forget(url: str) -> None:
    engine = plain(url)
    with engine.begin() as connection:
        METADATA.drop_all(connection)
        connection.exec_driver_sql("DROP SCHEMA IF EXISTS dbos CASCADE")
    engine.dispose()


def run(url: str, *statements: str) -> None:
    engine = plain(url)
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
    engine.dispose()


def shape(url: str) -> dict[str, tuple[list[str], list[str]]]:
    """Columns and indexes of our tables."""
    engine = plain(url)
    seen = sa.inspect(engine)
    found = {
        name: (
            sorted(column["name"] for column in seen.get_columns(name)),
            # Those that come with a constraint have other names in each database.
            sorted(
                str(index["name"])
                for index in seen.get_indexes(name)
                if "duplicates_constraint" not in index
            ),
        )
        for name in seen.get_table_names()
        if name.startswith("musetalk_")
    }
    engine.dispose()
    return found


def make_first(url: str, *more: str) -> None:
    run(url, *(one for one in FIRST.split(";") if one.strip()), *more)


async def test_the_first_version_is_upgraded_and_its_jobs_are_done(
    url: str, tmp_path: Path, opened: Any, wait: Any, seconds_made: list[tuple[str, float]]
) -> None:
    states = {
        name * 32: state for name, state in zip("abc", ("queued", "running", "queued"), strict=True)
    }
    make_first(url, *(WAITING.format(id=name, status=state) for name, state in states.items()))
    connect(url).dispose()
    new = sqlite_url(tmp_path / "new.sqlite")
    connect(new).dispose()
    assert shape(url) == shape(new)

    async with opened(database_url=url) as videos:
        for name in states:
            job = Job(name, "me", Request("text", "ada", 25, "economy"), "f")
            assert (await wait(videos, job)).status == "succeeded"
    assert len(seconds_made) == 3


def newer() -> sa.MetaData:
    """Tables of a version to come: two columns more and an index."""
    metadata = sa.MetaData()
    videos = METADATA.tables["musetalk_videos"].to_metadata(metadata)
    videos.append_column(sa.Column("note", sa.String(100)))
    videos.append_column(sa.Column("weight", sa.Integer, nullable=False, server_default="7"))
    sa.Index("musetalk_videos_weight", videos.c.weight)
    return metadata


def test_new_columns_come_to_old_rows_and_old_versions_go_on(url: str) -> None:
    make_first(url, WAITING.format(id="a", status="queued"))
    engine = connect(url)
    for _ in range(2):  # the second finds nothing to do
        with engine.begin() as connection:
            schema.bring_up_to_date(connection, newer())
    columns, indexes = shape(url)["musetalk_videos"]
    assert {"note", "weight"} <= set(columns) and "musetalk_videos_weight" in indexes

    ledger = Ledger(engine, 60)  # of the version before, beside the new one or after a roll-back
    old = ledger.add(Job("b", "me", Request("text", "ada", 25, "economy"), "f"))
    assert {job.id for job in ledger.unfinished()} == {"a", old.id}
    with engine.connect() as connection:
        found = connection.exec_driver_sql("SELECT note, weight FROM musetalk_videos").all()
    assert [tuple(row) for row in found] == [(None, 7)] * 2
    engine.dispose()


def unsound(metadata: sa.MetaData) -> list[str]:
    """What an old version could not write any more, or an upgrade not add."""
    names = {line.split()[0] for line in FIRST.splitlines() if line.startswith("    ")}
    wrong = []
    for name in ("musetalk_leases", "musetalk_videos"):
        for column in metadata.tables[name].columns:
            added = column.name not in names
            if added and not (column.nullable or column.server_default is not None):
                wrong.append(f"{column} has to be nullable or have a server_default")
            if added and (column.unique or column.primary_key or column.foreign_keys):
                wrong.append(f"{column} cannot come later")
    return wrong


def test_columns_that_came_later_can_be_left_out() -> None:
    assert unsound(METADATA) == unsound(newer_with_leases()) == []
    broken = newer_with_leases()
    broken.tables["musetalk_videos"].append_column(sa.Column("x", sa.Text, nullable=False))
    broken.tables["musetalk_videos"].append_column(sa.Column("y", sa.Text, unique=True))
    assert len(unsound(broken)) == 2


def newer_with_leases() -> sa.MetaData:
    metadata = newer()
    METADATA.tables["musetalk_leases"].to_metadata(metadata)
    return metadata


def test_a_table_that_is_read_at_length_fails_the_upgrade_not_the_service(
    postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While an upgrade waits for a backup, everybody waits for the upgrade."""
    monkeypatch.setattr(schema, "_LOCK_SECONDS", 1)
    forget(postgres)
    make_first(postgres)
    run(postgres, "ALTER TABLE musetalk_videos DROP COLUMN cache_key")
    engine = plain(postgres)
    try:
        with engine.begin() as backup:
            backup.exec_driver_sql("LOCK TABLE musetalk_videos IN ACCESS SHARE MODE")
            with pytest.raises(SetupError, match="lock timeout"):
                connect(postgres)
            assert "cache_key" not in shape(postgres)["musetalk_videos"][0]
        connect(postgres).dispose()
        columns, indexes = shape(postgres)["musetalk_videos"]
        assert "cache_key" in columns and "musetalk_videos_cache" in indexes
    finally:
        engine.dispose()
        forget(postgres)


def test_records_with_fields_of_a_newer_version_are_read(url: str) -> None:
    engine = connect(url)
    ledger = Ledger(engine, 60)
    known = ledger.add(Job("a", "me", Request("text", "ada", 25, "economy"), "f"))
    request = json.dumps({**vars(known.request), "to_come": [1]})
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE musetalk_videos SET request = :r"), {"r": request})
    assert ledger.get("a") == known and ledger.unfinished() == [known]
    assert Leases(engine).take("x", "me", 1)
    engine.dispose()

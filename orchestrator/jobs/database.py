"""The database of the video jobs: SQLite in a file, or PostgreSQL for several machines."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import ArgumentError, IntegrityError, SQLAlchemyError

from orchestrator.errors import DatabaseError, SetupError
from orchestrator.jobs.schema import bring_up_to_date

METADATA: Final = sa.MetaData()
"""Our tables; those of the workflow engine lie in the same database."""

_CREATION_LOCK: Final = 0x6D7573655F766964
_BUSY_MS: Final = 30_000


def sqlite_url(path: Path) -> str:
    """Address of a database in a file."""
    return str(sa.URL.create("sqlite", database=str(path.absolute())))


def connect(url: str) -> sa.Engine:
    """Open the database and add what an older version of it lacks.

    Args:
        url: ``sqlite:///PATH`` or ``postgresql://USER:PASSWORD@HOST/NAME``.

    Raises:
        SetupError: it is no such address, or the database cannot be used.
    """
    try:
        parsed = sa.make_url(url)
    except ArgumentError as error:
        raise SetupError(
            "MUSETALK_DATABASE_URL is no database address",
            remedy="write postgresql://USER:PASSWORD@HOST/NAME or sqlite:////PATH",
        ) from error
    shown = parsed.render_as_string(hide_password=True)
    backend = parsed.get_backend_name()
    if backend not in ("sqlite", "postgresql"):
        raise SetupError(
            f"video jobs cannot use {shown}", remedy="use a PostgreSQL or SQLite database"
        )
    if backend == "postgresql":
        engine = sa.create_engine(
            parsed.set(drivername="postgresql+psycopg"),
            pool_pre_ping=True,
            pool_size=5,
            connect_args={"connect_timeout": 10},
        )
    else:
        engine = sa.create_engine(parsed)
        event.listen(engine, "connect", _prepare_sqlite)
    try:
        with engine.begin() as connection:
            # Two workers that start together would both change the tables.
            if backend == "postgresql":
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_CREATION_LOCK)))
            else:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            bring_up_to_date(connection, METADATA)
    except SQLAlchemyError as error:
        engine.dispose()
        reason = str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
        raise SetupError(
            f"the database {shown} cannot be used: {reason}",
            remedy="check MUSETALK_DATABASE_URL and that the database runs",
        ) from error
    return engine


@contextmanager
def begin(engine: sa.Engine) -> Iterator[sa.Connection]:
    """A transaction, rolled back by any error.

    Args:
        engine: the database.

    Raises:
        DatabaseError: the database does not answer.
        IntegrityError: a key is there already.
    """
    try:
        with engine.begin() as connection:
            yield connection
    except IntegrityError:
        raise
    except SQLAlchemyError as error:
        reason = str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
        full = "disk is full" in reason or "No space left" in reason  # SQLite's and PostgreSQL's
        raise DatabaseError(
            f"the database of the video jobs failed: {reason}",
            remedy="free some space on its disk" if full else "try again in a moment",
        ) from error


def now(connection: sa.Connection) -> float:
    """The time by the database's clock, in seconds: the same for all workers."""
    if connection.dialect.name == "sqlite":
        return time.time()
    clock = sa.func.extract("epoch", sa.func.clock_timestamp())
    return float(connection.execute(sa.select(clock)).scalar_one())


def _prepare_sqlite(connection: sqlite3.Connection, record: object) -> None:
    # A transaction that writes takes its lock at once: two that read first and then both want
    # to write would otherwise fail each other.
    connection.isolation_level = "IMMEDIATE"
    connection.execute(f"PRAGMA busy_timeout={_BUSY_MS}")
    connection.execute("PRAGMA journal_mode=WAL")

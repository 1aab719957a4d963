"""Tables of an older version brought to this one, while that one may still be running.

There is no version number: what is missing is added, and nothing else is ever done. A rolling
update has old and new processes at one database, and a roll-back old ones at the new tables; both
work because a new column may be left out by who does not know it: it is nullable or has a default
in the database (``server_default``). What it held before stays readable in the columns that were
there. Renaming and removing take two releases: add and write both, then stop using the old one.
"""

from __future__ import annotations

import logging
from typing import Final

import sqlalchemy as sa
from sqlalchemy.schema import CreateColumn

LOG: Final = logging.getLogger("musetalk.jobs")

_LOCK_SECONDS: Final = 5
"""For a table that somebody reads at length (a backup): whoever comes after us waits with us."""


def bring_up_to_date(connection: sa.Connection, metadata: sa.MetaData) -> None:
    """Create the tables, columns and indexes that are missing; rows stay as they are.

    Args:
        connection: in a transaction that keeps others from doing the same.
        metadata: the tables of this version.
    """
    metadata.create_all(connection)
    seen = sa.inspect(connection)
    for table in metadata.sorted_tables:
        columns = {column["name"] for column in seen.get_columns(table.name)}
        indexes = {index["name"] for index in seen.get_indexes(table.name)}
        for column in table.columns:
            if column.name not in columns:
                _add(connection, table, column)
        for index in table.indexes:
            if index.name not in indexes:
                _limit_waiting(connection)
                index.create(connection)


def _add(connection: sa.Connection, table: sa.Table, column: sa.Column[object]) -> None:
    dialect = connection.dialect
    name = dialect.identifier_preparer.format_table(table)
    definition = CreateColumn(column).compile(dialect=dialect)
    _limit_waiting(connection)
    connection.exec_driver_sql(f"ALTER TABLE {name} ADD COLUMN {definition}")
    LOG.info("the database: column %s of %s added", column.name, table.name)


def _limit_waiting(connection: sa.Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_LOCK_SECONDS}s'")

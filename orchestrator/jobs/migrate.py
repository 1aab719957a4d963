"""Body of ``musetalk migrate``: the database's tables brought to this version, and nothing else."""

from __future__ import annotations

from dbos import DBOS
from sqlalchemy.exc import SQLAlchemyError

from orchestrator.errors import SetupError

# Their import is what puts our tables into the metadata that connect() creates.
from orchestrator.jobs import leases, ledger  # noqa: F401
from orchestrator.jobs.database import connect
from orchestrator.settings import Settings


def migrate(settings: Settings) -> None:
    """Add what our tables lack and upgrade those of the workflow engine.

    Harmless when up to date.

    Args:
        settings: ``database_url``.

    Raises:
        SetupError: no database is set, or it cannot be used.
    """
    if settings.database_url is None:
        raise SetupError(
            "no database is set: SQLite needs no migration",
            remedy="set MUSETALK_DATABASE_URL to the PostgreSQL of the orchestrators",
        )
    url = settings.database_url.get_secret_value()
    connect(url).dispose()
    try:
        DBOS.migrate(url)
    except SQLAlchemyError as error:
        raise SetupError(
            f"the workflow tables could not be migrated: {type(error).__name__}",
            remedy="check that the role of MUSETALK_DATABASE_URL may create tables",
        ) from error

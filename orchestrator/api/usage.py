"""Seconds of video that each key made today, in the database that all orchestrators share."""

from __future__ import annotations

import threading
import time
from typing import Final

import sqlalchemy as sa

from orchestrator.jobs.database import METADATA, connect

_TABLE: Final = sa.Table(
    "musetalk_usage",
    METADATA,
    sa.Column("owner", sa.String(64), primary_key=True),
    sa.Column("day", sa.String(10), primary_key=True),
    sa.Column("seconds", sa.Double, nullable=False),
)


def today() -> str:
    """The UTC day, ISO 8601."""
    return time.strftime("%Y-%m-%d", time.gmtime())


class Usage:
    """Counts; its calls block, and open the database when first needed.

    Args:
        url: of the database.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._engine: sa.Engine | None = None
        self._lock = threading.Lock()

    def seconds(self, owner: str, day: str) -> float:
        """Seconds of video of a key on a day.

        Raises:
            SetupError: the database cannot be used.
        """
        query = sa.select(_TABLE.c.seconds).where(_TABLE.c.owner == owner, _TABLE.c.day == day)
        with self._open().connect() as connection:
            return float(connection.execute(query).scalar_one_or_none() or 0.0)

    def add(self, owner: str, day: str, seconds: float) -> None:
        """Count seconds of video.

        Raises:
            SetupError: the database cannot be used.
        """
        same = (_TABLE.c.owner == owner, _TABLE.c.day == day)
        more = sa.update(_TABLE).where(*same).values(seconds=_TABLE.c.seconds + seconds)
        first = sa.insert(_TABLE).values(owner=owner, day=day, seconds=seconds)
        engine = self._open()
        with engine.begin() as connection:
            if connection.execute(more).rowcount:
                return
        try:
            with engine.begin() as connection:
                connection.execute(first)
        except sa.exc.IntegrityError:  # another orchestrator was first
            with engine.begin() as connection:
                connection.execute(more)

    def by_owner(self, day: str) -> dict[str, float]:
        """Seconds of all keys on a day.

        Raises:
            SetupError: the database cannot be used.
        """
        query = sa.select(_TABLE.c.owner, _TABLE.c.seconds).where(_TABLE.c.day == day)
        with self._open().connect() as connection:
            return {owner: float(seconds) for owner, seconds in connection.execute(query)}

    def close(self) -> None:
        """Close the connections."""
        if self._engine is not None:
            self._engine.dispose()

    def _open(self) -> sa.Engine:
        with self._lock:
            if self._engine is None:
                self._engine = connect(self._url)
            return self._engine

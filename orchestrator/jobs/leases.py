"""Leases in the database: who is alive, and who leads."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from orchestrator.jobs.database import METADATA, begin, now

_LEASES: Final = sa.Table(
    "musetalk_leases",
    METADATA,
    sa.Column("name", sa.String(200), primary_key=True),
    sa.Column("holder", sa.String(200), nullable=False),
    sa.Column("until", sa.Double, nullable=False),
)


class Leases:
    """Names that one holder at a time has, until it gives them back or is not heard of.

    Args:
        engine: the database.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def take(self, name: str, holder: str, seconds: float) -> bool:
        """Take a lease that is free, has run out or is already the holder's own; or renew it.

        Args:
            name: what is leased.
            holder: who wants it.
            seconds: for how long from now.

        Returns:
            Whether the holder has it.
        """
        try:
            with begin(self._engine) as connection:
                moment = now(connection)
                taken = connection.execute(
                    sa.update(_LEASES)
                    .where(_LEASES.c.name == name)
                    .where(sa.or_(_LEASES.c.holder == holder, _LEASES.c.until < moment))
                    .values(holder=holder, until=moment + seconds)
                ).rowcount
                if taken:
                    return True
                there = connection.execute(
                    sa.select(_LEASES.c.name).where(_LEASES.c.name == name)
                ).first()
                if there is not None:
                    return False
                connection.execute(
                    sa.insert(_LEASES).values(name=name, holder=holder, until=moment + seconds)
                )
                return True
        except IntegrityError:
            return False  # somebody else's first

    def give_back(self, name: str, holder: str) -> None:
        """End a lease early, if it is the holder's."""
        with begin(self._engine) as connection:
            connection.execute(
                sa.delete(_LEASES).where(_LEASES.c.name == name).where(_LEASES.c.holder == holder)
            )

"""The record of all video jobs in the database."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any, Final, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from orchestrator.errors import MuseTalkError
from orchestrator.jobs.database import METADATA, begin
from orchestrator.jobs.job import (
    FINISHED,
    UNFINISHED,
    Failure,
    Job,
    Removed,
    Request,
    Result,
    Stage,
    Status,
)

T = TypeVar("T", Request, Result, Failure)

_VIDEOS: Final = sa.Table(
    "musetalk_videos",
    METADATA,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("owner", sa.String(200), nullable=False),
    sa.Column("status", sa.String(20), nullable=False),
    sa.Column("stage", sa.String(20), nullable=False),
    sa.Column("progress", sa.Double, nullable=False),
    sa.Column("created", sa.Double, nullable=False),
    sa.Column("updated", sa.Double, nullable=False),
    sa.Column("expires", sa.Double),
    sa.Column("used_until", sa.Double, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("request", sa.Text, nullable=False),
    sa.Column("fingerprint", sa.String(64), nullable=False),
    sa.Column("idempotency_key", sa.String(200)),
    sa.Column("cache_key", sa.String(64)),
    sa.Column("result", sa.Text),
    sa.Column("error", sa.Text),
    sa.UniqueConstraint("owner", "idempotency_key"),
    sa.Index("musetalk_videos_owner", "owner", "created"),
    sa.Index("musetalk_videos_cache", "cache_key"),
)


class Ledger:
    """Video jobs in the database. Its methods block: call them in a thread.

    Args:
        engine: the database.
        retention: seconds that a finished job is kept.
    """

    def __init__(self, engine: sa.Engine, retention: float) -> None:
        self._engine = engine
        self._retention = retention

    def add(self, job: Job) -> Job:
        """Record a new job; or find the one that has its owner's idempotency key."""
        row = {
            **{name: getattr(job, name) for name in _PLAIN},
            "request": json.dumps(asdict(job.request)),
            "used_until": 0.0,
        }
        try:
            with begin(self._engine) as connection:
                connection.execute(sa.insert(_VIDEOS).values(row))
            return job
        except IntegrityError:
            known = self.with_key(job.owner, job.idempotency_key)
            if known is None:
                raise
            return known

    def with_key(self, owner: str, key: str | None) -> Job | None:
        """The job that a client created with an idempotency key."""
        if key is None:
            return None
        jobs = self._select(_VIDEOS.c.owner == owner, _VIDEOS.c.idempotency_key == key)
        return jobs[0] if jobs else None

    def get(self, identity: str) -> Job | None:
        """A job by its id."""
        jobs = self._select(_VIDEOS.c.id == identity)
        return jobs[0] if jobs else None

    def of_owner(self, owner: str, limit: int, before: Job | None = None) -> list[Job]:
        """Jobs of an owner, the newest first.

        Args:
            owner: whose.
            limit: how many at most.
            before: only older ones than this.
        """
        conditions = [_VIDEOS.c.owner == owner]
        if before is not None:
            earlier = sa.tuple_(_VIDEOS.c.created, _VIDEOS.c.id)
            conditions.append(earlier < sa.tuple_(before.created, before.id))
        order = (_VIDEOS.c.created.desc(), _VIDEOS.c.id.desc())
        return self._select(*conditions, order=order, limit=limit)

    def unfinished(self) -> list[Job]:
        """All jobs that wait or are under way, the oldest first."""
        return self._select(_VIDEOS.c.status.in_(UNFINISHED), order=(_VIDEOS.c.created,))

    def count_unfinished(self, owner: str | None = None) -> int:
        """How many jobs wait or are under way, of one owner or of all."""
        query = sa.select(sa.func.count()).where(_VIDEOS.c.status.in_(UNFINISHED))
        if owner is not None:
            query = query.where(_VIDEOS.c.owner == owner)
        with begin(self._engine) as connection:
            return int(connection.execute(query).scalar_one())

    def begin(self, identity: str) -> Job | None:
        """Count that a worker begins a job; None when there is nothing left to do for it."""
        changed = self._update(
            identity, UNFINISHED, status="running", attempts=_VIDEOS.c.attempts + 1
        )
        return self.get(identity) if changed else None

    def advance(self, identity: str, stage: Stage, progress: float) -> None:
        """Note how far a job is; never less than what was noted before."""
        with begin(self._engine) as connection:
            connection.execute(
                sa.update(_VIDEOS)
                .where(_VIDEOS.c.id == identity, _VIDEOS.c.status == "running")
                .where(_VIDEOS.c.progress <= progress)
                .values(stage=stage, progress=progress, updated=time.time())
            )

    def succeed(self, identity: str, result: Result) -> bool:
        """Note the result; False when the job was cancelled or deleted meanwhile."""
        return self._finish(identity, "succeeded", result=json.dumps(asdict(result)), progress=1.0)

    def fail(self, identity: str, error: MuseTalkError) -> bool:
        """Note why there will be no result; False when the job was over already."""
        failure = Failure(error.code, error.message, error.remedy)
        return self._finish(identity, "failed", error=json.dumps(asdict(failure)))

    def cancel(self, identity: str) -> bool:
        """Note that nobody wants it any more; False when the job was over already."""
        return self._finish(identity, "cancelled")

    def take_cached(self, identity: str, cache_key: str) -> bool:
        """Answer a job with the result of an earlier one that made the same video, if any.

        Without one the job remembers the key, for those that come after it.
        """
        own = sa.update(_VIDEOS).where(_VIDEOS.c.id == identity, _VIDEOS.c.status.in_(UNFINISHED))
        with begin(self._engine) as connection:
            # Writing first takes SQLite's lock, reading would not: the cleaner cannot delete
            # the earlier job before this one, too, refers to its files.
            connection.execute(own.values(cache_key=cache_key, updated=time.time()))
            earlier = connection.execute(
                sa.select(_VIDEOS.c.result)
                .where(_VIDEOS.c.cache_key == cache_key, _VIDEOS.c.status == "succeeded")
                .where(_VIDEOS.c.expires > time.time())
                .limit(1)
                .with_for_update(read=True)
            ).scalar_one_or_none()
            if earlier is None:
                return False
            result = json.dumps(json.loads(earlier) | {"cached": True})
            final = self._final("succeeded")
            connection.execute(own.values(**final, result=result, progress=1.0))
        return True

    def use(self, identity: str, seconds: float) -> None:
        """Keep a job's files for some seconds more: they are being read."""
        with begin(self._engine) as connection:
            connection.execute(
                sa.update(_VIDEOS)
                .where(_VIDEOS.c.id == identity)
                .values(used_until=time.time() + seconds)
            )

    def remove(self, identity: str) -> list[Removed]:
        """Forget a job."""
        return self._remove(_VIDEOS.c.id == identity)

    def remove_expired(self) -> list[Removed]:
        """Forget the finished jobs whose time is over and that nobody reads."""
        moment = time.time()
        return self._remove(
            _VIDEOS.c.status.in_(FINISHED),
            _VIDEOS.c.expires <= moment,
            _VIDEOS.c.used_until <= moment,
        )

    def needed(self) -> tuple[set[str], set[str]]:
        """Ids of unfinished jobs, all of whose files are needed; and paths of results."""
        query = sa.select(_VIDEOS.c.id, _VIDEOS.c.status, _VIDEOS.c.result)
        working: set[str] = set()
        paths: set[str] = set()
        with begin(self._engine) as connection:
            for identity, status, result in connection.execute(query):
                if status in UNFINISHED:
                    working.add(identity)
                if result is not None:
                    known = _read(Result, result)
                    paths |= {path for path in (known.video, known.captions) if path}
        return working, paths

    def _remove(self, *conditions: sa.ColumnElement[bool]) -> list[Removed]:
        query = sa.delete(_VIDEOS).where(*conditions).returning(_VIDEOS.c.id, _VIDEOS.c.result)
        with begin(self._engine) as connection:
            return [
                Removed(identity, _read(Result, result).folder if result else identity)
                for identity, result in connection.execute(query)
            ]

    def _final(self, status: Status) -> dict[str, Any]:
        moment = time.time()
        stage: Stage = "done"
        return {
            "status": status,
            "stage": stage,
            "updated": moment,
            "expires": moment + self._retention,
        }

    def _finish(self, identity: str, status: Status, **values: Any) -> bool:
        return self._update(identity, UNFINISHED, **self._final(status), **values)

    def _update(self, identity: str, statuses: Sequence[str], **values: Any) -> bool:
        with begin(self._engine) as connection:
            changed = connection.execute(
                sa.update(_VIDEOS)
                .where(_VIDEOS.c.id == identity, _VIDEOS.c.status.in_(statuses))
                .values({"updated": time.time(), **values})
            )
            return changed.rowcount > 0

    def _select(
        self,
        *conditions: sa.ColumnElement[bool],
        order: Sequence[Any] = (),
        limit: int | None = None,
    ) -> list[Job]:
        query = sa.select(_VIDEOS).where(*conditions).order_by(*order).limit(limit)
        with begin(self._engine) as connection:
            return [_job(row) for row in connection.execute(query).mappings()]


_PLAIN: Final = (
    *("id", "owner", "fingerprint", "idempotency_key", "status", "stage", "progress"),
    *("created", "updated", "expires", "attempts"),
)


def _job(row: sa.RowMapping) -> Job:
    result, error = row["result"], row["error"]
    return Job(
        **{name: row[name] for name in _PLAIN},
        request=_read(Request, row["request"]),
        result=_read(Result, result) if result else None,
        error=_read(Failure, error) if error else None,
    )


def _read(kind: type[T], written: str) -> T:
    """A record, without what a newer version wrote that runs beside us in a rolling update."""
    known = {field.name for field in fields(kind)}
    return kind(**{name: value for name, value in json.loads(written).items() if name in known})

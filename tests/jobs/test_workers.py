"""Several workers on PostgreSQL: one vanishes, the other finishes; releases and versions."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa


def running(url: str) -> int:
    """Workflows under way."""
    engine = sa.create_engine(sa.make_url(url).set(drivername="postgresql+psycopg"))
    try:
        with engine.connect() as connection:
            query = "SELECT count(*) FROM dbos.workflow_status WHERE status = 'PENDING'"
            return int(connection.execute(sa.text(query)).scalar_one())
    finally:
        engine.dispose()


@pytest.mark.slow
def test_jobs_of_a_vanished_worker_go_to_another(
    tmp_path: Path, jobs_outside: Any, postgres: str
) -> None:
    loopback = jobs_outside.Loopback(delay=0.2)
    environment = {
        "MUSETALK_DATABASE_URL": postgres,
        "MUSETALK_VIDEO_STORE": str(tmp_path / "files"),
        "FAKE_DELAY": "0.15",
    }
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
    workers = [
        jobs_outside.Worker(folder, loopback, MUSETALK_WORKER_ID=folder.name, **environment)
        for folder in folders
    ]
    try:
        for worker in workers:  # together: both create the tables
            worker.start()
        for worker in workers:
            worker.wait_ready()
        first, second = workers
        jobs = [first.create(message=f"Question number {n}?") for n in range(5)]
        assert second.job(jobs[0])["id"] == jobs[0]  # both know all jobs
        jobs_outside.until(lambda: running(postgres) == 2, 30)
        first.kill()
        kill = time.monotonic()
        states = second.wait_over(jobs, 90)
        assert [state["status"] for state in states] == ["succeeded"] * 5, states
        asked = [(one.what, one.text) for one in loopback.asked]
        repeated = [one for one in loopback.asked if asked.count((one.what, one.text)) > 1]
        assert len(repeated) <= 2 and all(one.at <= kill or one.at > kill for one in repeated)
        assert len(set(asked)) == 5 * 4
    finally:
        for worker in workers:
            worker.end()
        loopback.shutdown()


@pytest.mark.slow
def test_an_upgrade_loses_no_waiting_job(tmp_path: Path, jobs_outside: Any) -> None:
    loopback = jobs_outside.Loopback(delay=0.2)
    worker = jobs_outside.Worker(tmp_path, loopback, FAKE_DELAY="0.3")
    try:
        worker.start()
        worker.wait_ready()
        jobs = [worker.create(message=f"Question number {n}?") for n in range(3)]
        jobs_outside.until(lambda: worker.job(jobs[0])["stage"] == "render", 30)
        assert worker.stop() == 0
        asked = [(one.what, one.text) for one in loopback.asked]
        assert len(asked) == 4
        worker.start("2")  # a release whose sequence of steps is another one
        worker.wait_ready()
        states = worker.wait_over(jobs, 60)
        assert [state["status"] for state in states] == ["succeeded"] * 3, states
        asked = [(one.what, one.text) for one in loopback.asked]
        # What the old release had done is not paid again, though its steps no longer count.
        assert len(asked) == len(set(asked)) == 3 * 4
    finally:
        worker.end()
        loopback.shutdown()

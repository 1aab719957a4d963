from __future__ import annotations

import time
from pathlib import Path

import pytest
import sqlalchemy as sa

from orchestrator.errors import SetupError
from orchestrator.jobs.database import connect, sqlite_url
from orchestrator.jobs.leases import Leases
from orchestrator.jobs.worker import worker_id


@pytest.fixture
def engine(tmp_path: Path) -> sa.Engine:
    return connect(sqlite_url(tmp_path / "jobs.sqlite"))


def test_one_holder_until_it_runs_out(engine: sa.Engine) -> None:
    leases = Leases(engine)
    assert leases.take("leader", "a", 0.3)
    assert not leases.take("leader", "b", 0.3)
    assert leases.take("leader", "a", 0.3) and leases.take("other", "b", 0.3)
    time.sleep(0.4)
    assert leases.take("leader", "b", 60) and not leases.take("leader", "a", 60)
    leases.give_back("leader", "a")
    assert not leases.take("leader", "a", 60)
    leases.give_back("leader", "b")
    assert leases.take("leader", "a", 60)


def test_worker_ids_are_held_and_come_back(tmp_path: Path) -> None:
    with worker_id(tmp_path, None) as first:
        with worker_id(tmp_path, None) as second:
            assert first != second
        with worker_id(tmp_path, None) as third:
            assert third == second
    with worker_id(tmp_path, None) as again:
        assert again == first
    with (
        worker_id(tmp_path, "mine") as name,
        pytest.raises(SetupError, match="mine"),
        worker_id(tmp_path, "mine"),
    ):
        raise AssertionError(name)

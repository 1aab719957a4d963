"""The ledger on both databases."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from orchestrator.errors import DatabaseError, SpeechError
from orchestrator.jobs.database import METADATA, connect, sqlite_url
from orchestrator.jobs.job import Job, Request, Result
from orchestrator.jobs.leases import Leases
from orchestrator.jobs.ledger import Ledger

REQUEST = Request("text", "ada", 25, "quality", "Hello \x00 there.")
RESULT = Result("a/video.mp4", "a/captions.vtt", 10, "d", 25, 1.0)


@pytest.fixture(params=["sqlite", "postgres"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[sa.Engine]:
    if request.param == "sqlite":
        engine = connect(sqlite_url(tmp_path / "jobs.sqlite"))
    else:
        engine = connect(request.getfixturevalue("postgres"))
    yield engine
    with engine.begin() as connection:
        METADATA.drop_all(connection)
    engine.dispose()


@pytest.fixture
def ledger(engine: sa.Engine) -> Ledger:
    return Ledger(engine, 60)


def job(identity: str, owner: str = "me", key: str | None = None, created: float = 1.0) -> Job:
    return Job(identity, owner, REQUEST, "f", key, created=created)


def test_what_is_recorded_comes_back(ledger: Ledger) -> None:
    new = job("a", key="k")
    assert ledger.add(new) == new == ledger.get("a") == ledger.with_key("me", "k")
    assert ledger.get("b") is None and ledger.with_key("you", "k") is None
    assert ledger.add(job("b", key="k")).id == "a"
    assert ledger.add(job("c", "you", "k")).id == "c"
    assert ledger.add(job("d")).id == "d" and ledger.add(job("e")).id == "e"


def test_pages(ledger: Ledger) -> None:
    for number in range(5):
        ledger.add(job(f"j{number}", created=float(number // 2)))  # some at the same moment
    seen: list[str] = []
    last = None
    while page := ledger.of_owner("me", 2, last):
        seen += [one.id for one in page]
        last = page[-1]
    assert seen == ["j4", "j3", "j2", "j1", "j0"]
    assert ledger.of_owner("you", 2) == []


def test_from_the_queue_to_the_end(ledger: Ledger) -> None:
    ledger.add(job("a"))
    assert ledger.count_unfinished() == ledger.count_unfinished("me") == 1
    assert ledger.count_unfinished("you") == 0
    begun = ledger.begin("a")
    assert begun is not None and begun.status == "running" and begun.attempts == 1
    ledger.advance("a", "render", 0.5)
    ledger.advance("a", "tts", 0.2)  # a step that is gone over again after a restart
    now = ledger.get("a")
    assert now is not None and (now.stage, now.progress) == ("render", 0.5)
    assert ledger.needed() == ({"a"}, set())
    assert ledger.succeed("a", RESULT) and not ledger.fail("a", SpeechError("late"))
    assert not ledger.cancel("a") and ledger.begin("a") is None
    done = ledger.get("a")
    assert done is not None and done.result == RESULT and done.expires is not None
    assert ledger.needed() == (set(), {"a/video.mp4", "a/captions.vtt"})
    assert ledger.unfinished() == []


def test_failed_and_cancelled(ledger: Ledger) -> None:
    ledger.add(job("a"))
    ledger.add(job("b"))
    assert ledger.fail("a", SpeechError("no voice", remedy="wait")) and ledger.cancel("b")
    failed, cancelled = ledger.get("a"), ledger.get("b")
    assert failed is not None and failed.error is not None and failed.error.code == "speech"
    assert cancelled is not None and cancelled.status == "cancelled" and cancelled.expires
    assert not ledger.succeed("b", RESULT)


def test_cache(ledger: Ledger) -> None:
    for name in ("a", "b", "c"):
        ledger.add(job(name))
        ledger.begin(name)
    assert not ledger.take_cached("a", "key")
    assert not ledger.take_cached("b", "key")  # "a" is not ready
    ledger.succeed("a", RESULT)
    assert not ledger.take_cached("c", "other key")
    assert ledger.take_cached("c", "key")
    answered = ledger.get("c")
    assert answered is not None and answered.status == "succeeded"
    assert answered.result == dataclasses.replace(RESULT, cached=True)


def test_what_is_read_does_not_expire(engine: sa.Engine) -> None:
    ledger = Ledger(engine, 0.0)
    for name in ("a", "b", "c"):
        ledger.add(job(name))
    ledger.succeed("a", RESULT)
    ledger.succeed("b", dataclasses.replace(RESULT, video="x/video.mp4"))
    ledger.use("a", 60)
    time.sleep(0.01)
    assert [(one.id, one.folder) for one in ledger.remove_expired()] == [("b", "x")]
    ledger.use("a", -1)
    assert [one.id for one in ledger.remove_expired()] == ["a"]
    assert [one.id for one in ledger.remove("c")] == ["c"] and ledger.remove("c") == []


def test_one_lease_for_one_of_many(engine: sa.Engine) -> None:
    start = threading.Barrier(5)

    def take(number: int) -> bool:
        start.wait()
        return Leases(engine).take("leader", f"w{number}", 60)

    with ThreadPoolExecutor(5) as threads:
        assert sorted(threads.map(take, range(5))) == [False] * 4 + [True]


def test_two_workers_make_the_tables_at_the_same_time(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        METADATA.drop_all(connection)
    url = engine.url.render_as_string(hide_password=False)
    start = threading.Barrier(4)

    def make(number: int) -> None:
        start.wait()
        connect(url).dispose()

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(make, range(4))) == [None] * 4
    assert Ledger(engine, 1).unfinished() == []


def test_a_database_that_is_away() -> None:
    engine = sa.create_engine("sqlite:////no/such/folder/jobs.sqlite")
    with pytest.raises(DatabaseError) as caught:
        Ledger(engine, 1).get("a")
    assert caught.value.retryable


def test_a_disk_that_is_full(tmp_path: Path) -> None:
    engine = connect(sqlite_url(tmp_path / "jobs.sqlite"))
    ledger = Ledger(engine, 1)
    with engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()

    @sa.event.listens_for(engine, "checkout")
    def no_more(given: Any, *_: object) -> None:
        given.execute(f"PRAGMA max_page_count = {pages}").close()

    with pytest.raises(DatabaseError, match="full") as caught:
        for number in range(1000):
            ledger.add(job(f"j{number}"))
    assert "free some space" in caught.value.remedy
    engine.dispose()

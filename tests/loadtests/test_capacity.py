"""The search for the capacity, and one real trial of it beside the way that is replaced."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from loadtests import capacity, old_way
from loadtests.capacity import Trial, search, trial
from loadtests.loopback_llm import loopback_llm
from loadtests.ports import free_port
from loadtests.service import serving
from orchestrator.errors import SetupError


@pytest.mark.parametrize(
    ("carried", "lasting", "most", "tried"),
    [
        (5, 5, 64, [1, 2, 4, 8, 6, 5, 5]),
        (5, 3, 64, [1, 2, 4, 8, 6, 5, 5, 4, 3]),
        (9, 9, 3, [1, 2, 3, 3]),
        (9, 9, 6, [1, 2, 4, 5, 6, 6]),
        (9, 9, 1, [1, 1]),
        (0, 0, 64, [1]),
    ],
)
async def test_the_search_ends_at_the_largest_number_that_lasts(
    carried: int, lasting: int, most: int, tried: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fake(url: str, talkers: int, seconds: float) -> Trial:
        good = talkers <= (lasting if seconds == 9 else carried)
        return Trial(talkers, talkers, seconds, 100, 1.0 if good else 0.9, 0.0, 0.5, 0, 0.0, 0.1)

    monkeypatch.setattr(capacity, "trial", fake)
    found = await search("url", 1, 9, most)
    assert [one.talkers for one in found] == tried
    assert found[-1].carried is (lasting > 0)


def test_a_trial_with_a_failed_turn_is_not_carried() -> None:
    assert Trial(1, 1, 1.0, 100, 1.0, 0.0, 0.5, 0, 0.0, 0.1).carried
    assert not Trial(1, 1, 1.0, 100, 1.0, 0.0, 0.5, 1, 0.0, 0.1).carried
    assert not Trial(1, 1, 1.0, 100, 0.98, 0.0, 0.5, 0, 0.0, 0.1).carried
    assert not Trial(1, 1, 1.0, 100, 1.0, 0.0, 1.6, 0, 0.0, 0.1).carried


async def test_a_crowd_that_cannot_even_join_is_not_carried_and_says_why() -> None:
    found = await trial(f"http://127.0.0.1:{free_port()}", 2, 0.1)
    assert not found.carried and found.failed == 2
    assert "could not join or leave" in found.problem
    assert json.loads(json.dumps(found.record(), allow_nan=False))["first_frame_p95"] is None


@pytest.mark.triton
@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_viewers_take_turns_and_the_old_way_is_slower(
    tmp_path: Path, portraits_ready: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One service for all: its start takes longer than the rest."""
    cache = portraits_ready(tmp_path / "cache")
    monkeypatch.setattr(old_way, "REPLY", "This is short. It has two sentences.")
    with pytest.raises(SetupError, match="no prepared avatar"):
        old_way.prepared_avatar(tmp_path)
    async with loopback_llm() as llm:
        llm.reply = lambda _: old_way.REPLY
        async with serving(llm, cache) as url:
            seen = await trial(url, 1, 0.5, viewers=3)
            assert (seen.viewers, seen.talkers, seen.failed) == (3, 1, 0)
            assert seen.frames > 50 and 0 <= seen.on_time <= 1
            assert seen.first_frame_p95 > 0
            new = await old_way.ours(url)
        old = await old_way.old_way(llm, old_way.DEMO, old_way.prepared_avatar(cache))
    assert old.frames > 25
    assert old.total > new.first_frame

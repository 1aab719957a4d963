from __future__ import annotations

import asyncio

import pytest

from orchestrator.sessions.leisure import NEXT_SECONDS, SAFE_SECONDS, Leisure, is_early


@pytest.mark.parametrize(
    ("following", "ending", "expected"),
    [
        (None, None, False),
        (10 + SAFE_SECONDS / 2, 10 + 2 * NEXT_SECONDS, False),
        (10 + 2 * SAFE_SECONDS, 10 + 2 * NEXT_SECONDS, True),
        (10 + SAFE_SECONDS / 2, 10 + NEXT_SECONDS / 2, True),
        (9.0, 9.5, True),
    ],
)
def test_frames_are_early_or_the_end_is_near(
    following: float | None, ending: float | None, expected: bool
) -> None:
    assert is_early(following, ending, 10.0) is expected


def test_another_session_that_begins_to_speak_takes_the_time_but_not_the_end() -> None:
    early = 10 + 2 * SAFE_SECONDS
    assert not is_early(early, 10 + 2 * NEXT_SECONDS, 10.0, hurried=True)
    assert is_early(early, 10 + NEXT_SECONDS / 2, 10.0, hurried=True)


async def test_one_thing_at_a_time_and_only_when_there_is_time() -> None:
    leisure = Leisure()
    done: list[str] = []
    at_work = 0

    async def work(name: str) -> None:
        nonlocal at_work
        async with leisure.taken("voice"):
            at_work += 1
            assert at_work == 1
            await asyncio.sleep(0.01)
            at_work -= 1
            done.append(name)

    tasks = [asyncio.create_task(work(name)) for name in ("voice", "features")]
    await asyncio.sleep(0.05)
    assert not done
    leisure.judge_by(lambda _: len(done) < 1)
    await asyncio.sleep(0.1)
    assert done == ["voice"]
    leisure.judge_by(lambda _: True)
    await asyncio.wait_for(asyncio.gather(*tasks), 5)
    assert done == ["voice", "features"]


async def test_who_is_cancelled_while_waiting_keeps_nobody() -> None:
    leisure = Leisure()

    async def work() -> None:
        async with leisure.taken("voice"):
            pass

    gone = asyncio.create_task(work())
    await asyncio.sleep(0.03)
    gone.cancel()
    leisure.judge_by(lambda _: True)
    await asyncio.wait_for(work(), 5)
    assert gone.cancelled()


async def test_a_slow_voice_begins_earlier() -> None:
    leisure = Leisure()
    asked: list[float] = []

    def there_is_time(needed: float) -> bool:
        asked.append(needed)
        return True

    leisure.judge_by(there_is_time)
    async with leisure.taken("voice", 10, at_once=True):
        await asyncio.sleep(0.1)
    async with leisure.taken("features", at_once=True):
        await asyncio.sleep(0.2)
    assert not asked
    async with leisure.taken("voice", 100):
        pass
    assert 0.01 * 100 + 0.2 <= asked[-1] < 10
    async with leisure.taken("features"):
        pass
    assert asked[-1] == NEXT_SECONDS


async def test_the_first_sentence_does_not_wait_for_one_that_waits() -> None:
    leisure = Leisure()

    async def later() -> None:
        async with leisure.taken("voice"):
            pass

    waiting = asyncio.create_task(later())
    await asyncio.sleep(0.03)
    async with leisure.taken("features", at_once=True):
        assert not waiting.done()
    leisure.judge_by(lambda _: True)
    await asyncio.wait_for(waiting, 5)

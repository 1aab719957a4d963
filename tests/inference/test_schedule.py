from __future__ import annotations

import asyncio

import pytest

from orchestrator.inference.schedule import (
    LONGEST_HURRY,
    LONGEST_LULL,
    LULL_SECONDS,
    SPARE_SECONDS,
    WHENEVER,
    Scheduler,
)


class Server:
    """Remembers the order of the requests, and answers when it is told to."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self.gates: dict[str, asyncio.Event] = {}

    async def answer(self, name: str) -> str:
        self.order.append(name)
        self.gates[name] = asyncio.Event()
        await self.gates[name].wait()
        return name


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_the_earliest_deadline_goes_first() -> None:
    server, scheduler = Server(), Scheduler(in_flight=1, per_owner=9)
    tasks = [
        asyncio.create_task(
            scheduler.run(lambda n=name: server.answer(n), model="m", owner=name, deadline=when)
        )
        for name, when in [("first", 9.0), ("offline", WHENEVER), ("late", 5.0), ("soon", 1.0)]
    ]
    await settle()
    assert scheduler.waiting() == {"m": 3} and scheduler.running() == {"m": 1}
    for name in ("first", "soon", "late", "offline"):
        server.gates[name].set()
        await settle()
    assert await asyncio.gather(*tasks) == ["first", "offline", "late", "soon"]
    assert server.order == ["first", "soon", "late", "offline"]
    assert scheduler.running() == {"m": 0}


async def test_one_session_does_not_take_all_places() -> None:
    server, scheduler = Server(), Scheduler(in_flight=3, per_owner=2)
    tasks = [
        asyncio.create_task(
            scheduler.run(
                lambda n=f"{owner}{number}": server.answer(n),
                model="m",
                owner=owner,
                deadline=number,
            )
        )
        for owner, number in [("a", 0), ("a", 1), ("a", 2), ("b", 3), ("b", 4)]
    ]
    await settle()
    assert server.order == ["a0", "a1", "b3"]
    server.gates["b3"].set()
    await settle()
    assert server.order[-1] == "b4"
    server.gates["a0"].set()
    await settle()
    assert server.order[-1] == "a2"
    for name in ("a1", "a2", "b4"):
        server.gates[name].set()
    await asyncio.gather(*tasks)


async def test_models_do_not_wait_for_each_other() -> None:
    server, scheduler = Server(), Scheduler(in_flight=1)
    for model in ("a", "b"):
        task = asyncio.create_task(
            scheduler.run(lambda n=model: server.answer(n), model=model, owner=1)
        )
        task.add_done_callback(lambda done: done.exception())
    await settle()
    assert server.order == ["a", "b"]
    for gate in server.gates.values():
        gate.set()
    await settle()


@pytest.mark.parametrize("moment", ["waiting", "chosen", "running"])
async def test_a_cancelled_request_gives_its_place_back(moment: str) -> None:
    server, scheduler = Server(), Scheduler(in_flight=1)
    first = asyncio.create_task(scheduler.run(lambda: server.answer("1"), model="m", owner=1))
    await settle()
    second = asyncio.create_task(scheduler.run(lambda: server.answer("2"), model="m", owner=2))
    await settle()
    if moment == "running":
        first.cancel()
    elif moment == "waiting":
        second.cancel()
    else:
        server.gates["1"].set()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        second.cancel()
    await settle()
    for gate in server.gates.values():
        gate.set()
    await asyncio.wait({first, second})
    assert scheduler.running() == {"m": 0} and scheduler.waiting() == {"m": 0}
    assert (
        await asyncio.wait_for(scheduler.run(lambda: asyncio.sleep(0, "ok"), model="m", owner=3), 1)
        == "ok"
    )


async def test_errors_pass_through_and_free_the_place() -> None:
    scheduler = Scheduler(in_flight=1)

    async def broken() -> None:
        raise ValueError("broken")

    for _ in range(3):
        with pytest.raises(ValueError, match="broken"):
            await scheduler.run(broken, model="m", owner=1)
    assert scheduler.running() == {"m": 0}


async def test_what_can_wait_is_kept_back_while_a_session_hurries() -> None:
    scheduler, now = Scheduler(), asyncio.get_running_loop().time()
    order: list[str] = []

    async def note(name: str) -> None:
        order.append(name)

    def ask(name: str, seconds: float) -> asyncio.Task[None]:
        return asyncio.create_task(
            scheduler.run(lambda: note(name), model="m", owner=name, deadline=now + seconds)
        )

    with scheduler.hurry():
        assert scheduler.hurried
        tasks = [
            ask("job", WHENEVER),
            ask("later", 3600.0),
            ask("soon", SPARE_SECONDS + 0.05),
            ask("first", 0.0),
        ]
        await settle()
        assert order == ["first"]
        await asyncio.wait_for(tasks[2], 5)  # by the clock alone
        assert order == ["first", "soon"]
    await asyncio.wait_for(asyncio.gather(*tasks), 5)
    assert order == ["first", "soon", "later", "job"] and not scheduler.hurried


async def test_the_last_of_several_hurries_lets_the_others_go() -> None:
    scheduler = Scheduler()
    with scheduler.hurry():
        with scheduler.hurry():
            waiting = asyncio.create_task(
                scheduler.run(lambda: asyncio.sleep(0, "ok"), model="m", owner=1)
            )
            await settle()
        await settle()
        assert not waiting.done()
    assert await asyncio.wait_for(waiting, 5) == "ok"


async def test_a_hurry_without_end_keeps_nobody() -> None:
    scheduler = Scheduler()
    began = asyncio.get_running_loop().time()
    with scheduler.hurry():
        call = scheduler.run(lambda: asyncio.sleep(0, "ok"), model="m", owner=1)
        assert await asyncio.wait_for(call, 10 * LONGEST_HURRY) == "ok"
        assert asyncio.get_running_loop().time() - began >= LONGEST_HURRY * 0.9


async def test_long_work_gives_way_while_somebody_is_spoken_to_and_still_gets_on() -> None:
    scheduler = Scheduler()
    clock = asyncio.get_running_loop().time

    async def live() -> None:
        async def face() -> str:
            return "face"

        await scheduler.run(face, model="lipsync", owner="a", deadline=clock() + 1)

    began = clock()
    await scheduler.lull()
    assert clock() - began < LULL_SECONDS / 2  # nobody is there

    await live()
    began = clock()
    await scheduler.lull()
    assert LULL_SECONDS * 0.9 < clock() - began < LONGEST_LULL

    async def talking() -> None:
        while True:
            await live()
            await asyncio.sleep(0.05)

    talk = asyncio.create_task(talking())
    await asyncio.sleep(0.1)
    began = clock()
    await scheduler.lull()
    waited = clock() - began
    talk.cancel()
    assert LONGEST_LULL * 0.9 < waited < LONGEST_LULL + 1

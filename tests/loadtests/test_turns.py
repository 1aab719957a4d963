"""What a viewer of the load tests reports of turns that do not go well."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from loadtests import live_viewers, turns
from loadtests.figures import Turn
from loadtests.turns import Speaker
from loadtests.viewer import Received, Viewer


class Told(Viewer):
    """A viewer to whom a service answers at once, with these sentences."""

    said: tuple[str, ...] = ()
    ends = True
    answer: dict[str, Any] | None = None

    async def __aenter__(self) -> Told:
        self.joined = {"fps": 25.0}
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def begin(self, event: str, payload: dict[str, Any]) -> str:
        if self.answer is not None:
            raise ConnectionError(self.answer)
        self.media.append(Received(1, "speech", 0.0, 1.0, b"", 0.0, 0.0))
        lines = self.said or (payload["text"],)
        for turn, text in enumerate(lines):
            line = {"turn": f"t{turn}", "role": "avatar", "text": text}
            self.events.append((0.0, "transcript", line))
        return "t0"

    async def performance(self, turn: str, timeout: float = 60) -> dict[str, Any]:
        if not self.ends:
            await asyncio.sleep(timeout)
        figures = dict.fromkeys(("first_audio", "real_time_factor"), 0.5)
        stages = {"tts": {"start": -0.25, "duration": 0.2, "busy": 0.2}}
        return {**figures, "frames": 25, "frames_late": 0, "frames_reduced": 0, "stages": stages}

    async def idle_again(self, turn: str, timeout: float = 60) -> None:
        pass


@pytest.mark.parametrize(
    ("said", "marker"),
    [
        ((), True),
        (("Something else.",), False),
        (("Good day. Number 3.", "Number 5."), False),
        (("Number 33.",), False),
    ],
)
async def test_another_viewers_words_beside_the_own_are_cross_talk(
    said: tuple[str, ...], marker: bool
) -> None:
    viewer = Told("url")
    viewer.said = said
    turn = await Speaker(3, await viewer.__aenter__(), random.Random(0)).turn("say")
    assert turn.marker is marker and not turn.error
    waited = turn.figures["first_frame_after_text"] - turn.figures["first_frame"]
    assert waited == pytest.approx(0.25)


@pytest.fixture
def reported(monkeypatch: pytest.MonkeyPatch) -> list[Turn]:
    found: list[Turn] = []
    monkeypatch.setattr(live_viewers, "say_turn", found.append)
    monkeypatch.setattr(live_viewers, "say", lambda data: None)
    monkeypatch.setattr(live_viewers, "Viewer", Told)
    return found


async def viewed(count: int, speaking: int, seconds: float) -> None:
    viewers = live_viewers.Viewers("url", (0.0, 0.0), speaking)
    for number in range(count):
        viewers.start(4 * number)  # each says
    await asyncio.sleep(seconds)
    await viewers.close()


async def test_a_turn_that_never_ends_has_failed_while_the_run_still_listens(
    reported: list[Turn], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Told, "ends", False)
    monkeypatch.setattr(turns, "TURN_SECONDS", 0.2)
    await viewed(1, 0, 0.6)
    (turn,) = reported
    assert turn.request == "say" and not turn.refused
    assert "did not end within 0.2 s" in turn.error


async def test_who_is_refused_does_not_keep_the_floor_while_it_waits(
    reported: list[Turn], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Told, "answer", {"code": "overloaded", "retry_after": 30})
    await viewed(2, 1, 0.3)
    assert [(turn.user, turn.refused) for turn in reported] == [(0, True), (4, True)]

from __future__ import annotations

from orchestrator.sessions.outbox import WINDOW, Outbox


def filled(count: int) -> Outbox:
    outbox = Outbox()
    for number in range(count):
        outbox.push("idle", b"x", number * 1.0, 1.0)
    return outbox


def sent(outbox: Outbox) -> list[int]:
    numbers = []
    while (message := outbox.take(now=0.0)) is not None:
        numbers.append(message.sequence)
    return numbers


def test_no_more_than_the_window_is_on_its_way() -> None:
    outbox = filled(10)
    assert sent(outbox) == list(range(WINDOW))
    outbox.confirm(99, now=0.0)
    assert sent(outbox) == []
    outbox.confirm(1, now=0.0)
    assert sent(outbox) == [WINDOW]
    assert outbox.unconfirmed == WINDOW and len(outbox) == 10 - WINDOW - 1


def test_on_a_long_way_more_are_under_way() -> None:
    outbox = filled(30)
    assert sent(outbox) == list(range(WINDOW)) and outbox.round_trip == 0
    outbox.confirm(0, now=0.65)
    assert outbox.round_trip == 0.65
    assert sent(outbox) == list(range(WINDOW, WINDOW + 7))
    outbox.resume(0)
    assert outbox.round_trip == 0, "it may have come back by another way"
    assert sent(outbox) == list(range(1, WINDOW + 1))


def test_what_was_cut_off_is_not_sent() -> None:
    outbox = filled(5)
    outbox.push("init", b"i")
    outbox.drop_from(2.5)
    sequences = sent(outbox)
    outbox.confirm(0, now=0.0), outbox.confirm(1, now=0.0), outbox.confirm(2, now=0.0)
    assert [*sequences, *sent(outbox)] == [0, 1, 2, 5]


def test_a_client_that_comes_back_gets_the_rest() -> None:
    outbox = filled(6)
    sent(outbox)
    outbox.confirm(0, now=0.0)
    assert outbox.reaches(0) and outbox.reaches(2) and outbox.reaches(5)
    outbox.resume(1)
    assert sent(outbox) == [2, 3, 4]


def test_what_is_gone_or_was_never_sent_cannot_be_resumed() -> None:
    outbox = filled(6)
    sent(outbox)
    outbox.confirm(0, now=0.0)
    outbox.confirm(1, now=0.0)
    assert not outbox.reaches(0) and not outbox.reaches(6)
    empty = Outbox()
    assert not empty.reaches(0)

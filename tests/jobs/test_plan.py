from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import UsageError
from orchestrator.jobs.plan import PIECE_SECONDS, SEGMENT_SECONDS, Speech, pieces_of, window
from orchestrator.speech.windows import frame_count, windows

speeches = st.lists(
    st.builds(Speech, st.integers(1, 100 * 16_000), st.one_of(st.none(), st.floats(0, 0.6))),
    max_size=6,
)


@given(speeches, st.integers(8, 49))
def test_every_frame_is_in_one_piece(speeches: list[Speech], fps: int) -> None:
    pieces = pieces_of(speeches, fps)
    position = 0
    seen: dict[int, int] = {}
    for piece in pieces:
        assert piece.position == position and piece.frames > 0
        for span in piece.spans:
            assert span.first == seen.get(span.speech, 0)
            seen[span.speech] = span.end
            speech = speeches[span.speech]
            if span.end < frame_count(speech.samples, fps):
                assert span.pause == 0 and span.end % (SEGMENT_SECONDS * fps) == 0
        position += piece.frames
        longest = max(span.frames for span in piece.spans)
        assert piece.frames <= max(PIECE_SECONDS * fps, longest)
    assert list(seen) == sorted(seen)
    for index, speech in enumerate(speeches):
        assert seen.get(index, 0) == frame_count(speech.samples, fps)


@given(st.integers(1, 200 * 16_000), st.sampled_from([8, 12, 25, 29, 30, 49]))
def test_a_window_gives_each_frame_the_steps_it_has_in_the_whole(samples: int, fps: int) -> None:
    speech = Speech(samples, None)
    whole = windows(samples * 50 // 16_000, samples, fps)
    for piece in pieces_of([speech], fps):
        for span in piece.spans:
            heard = window(span, speech, fps)
            assert heard.start % (SEGMENT_SECONDS * 16_000) == 0
            length = heard.end - heard.start
            part = windows(length * 50 // 16_000, length, fps)
            part = part[heard.first : heard.first + span.end - span.first]
            offset = heard.start * 50 // 16_000
            assert ((part + offset == whole[span.first : span.end]) | (part < 0)).all()
            assert ((part >= 0) == (whole[span.first : span.end] >= 0)).all()


def test_too_short_for_a_frame() -> None:
    assert pieces_of([Speech(300, None)], 25) == []
    assert pieces_of([], 25) == []
    assert pieces_of([Speech(300, 0.1)], 25)[0].frames == 3


def test_sentences_share_a_piece_until_it_is_long_enough() -> None:
    pieces = pieces_of([Speech(4 * 16_000, 0.0)] * 5, 25)
    assert [len(piece.spans) for piece in pieces] == [2, 2, 1]
    assert [piece.position for piece in pieces] == [0, 200, 400]


@pytest.mark.parametrize("fps", [7, 50])
def test_frame_rates_that_are_not_possible(fps: int) -> None:
    with pytest.raises(UsageError, match="frames a second"):
        pieces_of([Speech(16_000, None)], fps)

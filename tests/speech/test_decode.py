from __future__ import annotations

import io
import time
import wave
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.errors import MediaError
from orchestrator.speech.decode import decode_audio

I16 = npt.NDArray[np.int16]
LIMITS = {"max_seconds": 60.0, "max_bytes": 50_000_000}

FORMATS = [
    ("u8.wav", ["-c:a", "pcm_u8"]),
    ("s24.wav", ["-c:a", "pcm_s24le"]),
    ("float.wav", ["-c:a", "pcm_f32le"]),
    ("stereo48.wav", []),
    ("mulaw.wav", ["-c:a", "pcm_mulaw", "-ar", "8000", "-ac", "1"]),
    ("tone.mp3", []),
    ("tone.opus", []),
    ("tone.ogg", []),
    ("tone.flac", []),
    ("tone.m4a", []),
    ("tone.aac", []),
    ("tone.aiff", []),
    ("tone.caf", []),
    ("tone.wma", []),
    ("tone.amr", ["-ar", "8000", "-ac", "1"]),
    ("tone.mp4", ["-c:v", "mpeg4"]),
    ("faststart.mp4", ["-c:v", "mpeg4", "-movflags", "+faststart"]),
    ("tone.webm", ["-c:v", "libvpx", "-deadline", "realtime"]),
    ("tone.mkv", ["-c:v", "mpeg4"]),
    ("tone.mov", ["-c:v", "mpeg4"]),
    ("tone.avi", ["-c:v", "mpeg4"]),
    ("tone.ts", ["-c:v", "mpeg2video", "-r", "25"]),
]


def strength(pcm: I16, hertz: float) -> float:
    """Amplitude of one frequency."""
    t = np.arange(len(pcm)) / 16000
    return float(2 * abs(np.mean(pcm * np.exp(-2j * np.pi * hertz * t))))


@pytest.mark.parametrize(("name", "options"), FORMATS, ids=[name for name, _ in FORMATS])
async def test_formats(make_sound, name: str, options: list[str]) -> None:
    video = name.endswith((".mp4", ".webm", ".mkv", ".mov", ".avi", ".ts"))
    path = make_sound(name, *options, video=video)
    pcm = await decode_audio(path, **LIMITS)
    assert pcm.dtype == np.int16
    assert abs(len(pcm) / 16000 - 2.0) < 0.07  # AAC and others pad their last frame
    # Left 0.5 and right 0.3 mixed to 0.4 of full scale (AMR changes the level somewhat).
    middle = pcm[4000:-4000]
    assert strength(middle, 440) == pytest.approx(0.4 * 32768, rel=0.2)
    assert strength(middle, 1300) < 300
    np.testing.assert_array_equal(await decode_audio(path.read_bytes(), **LIMITS), pcm)


async def test_wav_at_16_khz_passes_unchanged(speechlike) -> None:
    pcm = speechlike(40_001)
    data = io.BytesIO()
    with wave.open(data, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(pcm.tobytes())
    np.testing.assert_array_equal(await decode_audio(data.getvalue(), **LIMITS), pcm)


async def test_other_rates(make_sound) -> None:
    pcm = await decode_audio(make_sound("tone.wav"), **LIMITS, rate=48000)
    assert len(pcm) == 96_000


async def test_a_wav_without_its_length_is_read(make_sound) -> None:
    """Programs that write to a pipe cannot fill the length in."""
    data = bytearray(make_sound("tone.wav").read_bytes())
    data[4:8] = b"\xff\xff\xff\xff"
    at = data.index(b"data")
    data[at + 4 : at + 8] = b"\xff\xff\xff\xff"
    assert len(await decode_audio(bytes(data), **LIMITS)) == 32_000


@pytest.mark.parametrize(
    "name", ["a.wav", "a.mp3", "a.flac", "a.m4a", "a.mp4", "a.mkv", "a.webm", "a.aiff", "fs.mp4"]
)
async def test_cut_off_files_are_refused(make_sound, name: str) -> None:
    options = ["-movflags", "+faststart"] if name == "fs.mp4" else []
    data = make_sound(name, *options, seconds=8.0).read_bytes()
    with pytest.raises(MediaError, match="cut off"):
        await decode_audio(data[: len(data) * 2 // 5], **LIMITS)


async def test_no_sound_track(make_sound) -> None:
    path = make_sound("silent.mp4", "-an", "-c:v", "mpeg4", "-map", "1:v", video=True)
    with pytest.raises(MediaError, match="no sound track"):
        await decode_audio(path, **LIMITS)


async def test_zero_length(make_sound, tmp_path: Path) -> None:
    empty = io.BytesIO()
    with wave.open(empty, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
    with pytest.raises(MediaError, match="no sound"):
        await decode_audio(empty.getvalue(), **LIMITS)
    with pytest.raises(MediaError, match="empty"):
        await decode_audio(b"", **LIMITS)
    (tmp_path / "nothing.mp3").touch()
    with pytest.raises(MediaError, match="empty"):
        await decode_audio(tmp_path / "nothing.mp3", **LIMITS)


async def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="not there"):
        await decode_audio(tmp_path / "nowhere.wav", **LIMITS)
    with pytest.raises(MediaError, match="not a file"):
        await decode_audio(tmp_path, **LIMITS)


async def test_two_hours_are_refused_soon(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    samples = 2 * 3600 * 16000
    with path.open("wb") as file, wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(16000)
        sound.writeframes(bytes(samples * 2))
    started = time.monotonic()
    with pytest.raises(MediaError, match="longer than 60 s"):
        await decode_audio(path, max_seconds=60, max_bytes=10**9)
    assert time.monotonic() - started < 20
    with pytest.raises(MediaError, match="230 MB, the limit is 50 MB"):
        await decode_audio(path, **LIMITS)


async def test_a_bomb_is_refused_soon(make_sound) -> None:
    """Silence packs well: ten minutes, 115 MB of samples, in half of one; little is decoded."""
    path = make_sound("bomb.flac", seconds=600, source="anullsrc=r=48000:cl=stereo")
    assert path.stat().st_size < 600_000
    with pytest.raises(MediaError, match="longer than 60 s"):
        await decode_audio(path, **LIMITS)


async def test_exactly_the_limit_passes(make_sound) -> None:
    assert len(await decode_audio(make_sound("a.wav"), max_seconds=2.0, max_bytes=10**7)) == 32000
    with pytest.raises(MediaError, match="longer"):
        await decode_audio(make_sound("b.wav"), max_seconds=1.99, max_bytes=10**7)


PLAYLISTS = {
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:2,\n{target}\n#EXT-X-ENDLIST\n",
    "hls-file": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:2,\nfile://{target}\n#EXT-X-ENDLIST\n",
    "concat": "ffconcat version 1.0\nfile '{target}'\n",
    "concat-relative": "ffconcat version 1.0\nfile secret.wav\n",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=audio 5004 RTP/AVP 0\n",
    "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
    'mediaPresentationDuration="PT2S"><Period><AdaptationSet mimeType="audio/wav">'
    '<Representation id="1" bandwidth="1"><BaseURL>{target}</BaseURL></Representation>'
    "</AdaptationSet></Period></MPD>",
}


@pytest.mark.parametrize("kind", PLAYLISTS)
@pytest.mark.parametrize("name", ["trick.mp4", "trick.m3u8", "trick.wav", "trick.ffconcat"])
async def test_playlists_read_no_other_file(make_sound, kind: str, name: str) -> None:
    target = make_sound("secret.wav")
    path = target.with_name(name)
    path.write_text(PLAYLISTS[kind].format(target=target))
    for source in (path, path.read_bytes()):
        with pytest.raises(MediaError) as caught:
            await decode_audio(source, **LIMITS)
        assert "\n" not in str(caught.value)


async def test_text_named_mp4(tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    path.write_text("This is not a film.\n" * 2000)
    with pytest.raises(MediaError, match="not sound or video"):
        await decode_audio(path, **LIMITS)


async def test_pictures_are_refused(make_sound, tmp_path: Path) -> None:
    png = bytes.fromhex(
        "89504e470d0a1a0a0000000d4948445200000001000000010806000000"
        "1f15c4890000000d49444154789c6360000002000001e221bc330000000049454e44ae426082"
    )
    with pytest.raises(MediaError):
        await decode_audio(png, **LIMITS)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.sampled_from(
        [b"", b"RIFF\x24\x00\x00\x00WAVEfmt ", b"ID3\x04", b"OggS", b"fLaC", b"\0\0\0 ftyp"]
    ),
    st.binary(min_size=1, max_size=3000),
)
async def test_rubbish_is_sound_or_a_media_error(head: bytes, body: bytes) -> None:
    try:
        pcm = await decode_audio(head + body, **LIMITS)
    except MediaError as error:
        assert "\n" not in str(error)
    else:
        assert 0 < len(pcm) <= 60 * 16000


async def test_gaps_become_silence(make_sound, tmp_path: Path) -> None:
    """As in recordings of calls: packets that are not there take their time all the same."""
    import av

    path = tmp_path / "gap.webm"
    tone = (8000 * np.sin(2 * np.pi * 440 * np.arange(960) / 48000)).astype(np.int16)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libopus", rate=48000)
        for index in range(100):
            if 40 <= index < 65:  # half a second is missing
                continue
            frame = av.AudioFrame.from_ndarray(tone[None], format="s16", layout="mono")
            frame.sample_rate = 48000
            frame.pts = index * 960
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    pcm = await decode_audio(path, **LIMITS)
    assert abs(len(pcm) / 16000 - 2.0) < 0.1
    assert np.abs(pcm[int(0.95 * 16000) : int(1.2 * 16000)]).max() < 600
    assert np.abs(pcm[int(1.4 * 16000) : int(1.9 * 16000)]).max() > 4000

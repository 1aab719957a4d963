from __future__ import annotations

import ast
import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import numpy as np
import pytest

from orchestrator.errors import OverloadedError, SetupError, SpeechError, UsageError
from orchestrator.settings import Settings
from orchestrator.speech import piper, piper_process
from orchestrator.speech.piper import PiperSynthesizer, find_voice
from orchestrator.speech.tts import SpeechChunk, synthesizer

SENTENCE = "Hello, this is the embedded voice of the talking portrait."
LONG = "This sentence goes on and on without an end, as some people do, " * 4


def alive(pid: int | None) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rsplit(")", 1)[1].split()[0] != "Z"


@pytest.fixture
async def voice() -> AsyncIterator[PiperSynthesizer]:
    """The real Piper with the bundled voice."""
    pytest.importorskip("piper")
    made = PiperSynthesizer(find_voice(None), timeout=60.0, max_chars=5000)
    yield made
    pid = made.pid
    await made.close()
    assert not alive(pid)


async def speak(voice: PiperSynthesizer, text: str, language: str | None = None):
    return [chunk async for chunk in voice.synthesize(text, language=language)]


def seconds(chunks: list[SpeechChunk]) -> float:
    return sum(len(chunk.pcm) for chunk in chunks) / chunks[0].rate


async def test_speaks(voice: PiperSynthesizer) -> None:
    assert voice.pid is None  # nothing is started before it is needed
    chunks = await speak(voice, SENTENCE, "en-GB")
    assert voice.name == "piper/en_US-joe-medium"
    assert {chunk.rate for chunk in chunks} == {22050}
    assert all(chunk.pcm.dtype == np.int16 for chunk in chunks)
    assert 2.0 < seconds(chunks) < 7.0
    pcm = np.concatenate([chunk.pcm for chunk in chunks]).astype(float)
    assert 500 < pcm.std() < 12000
    assert np.abs(pcm).max() < 30000  # room for resampling
    first = voice.pid
    longer = await speak(voice, SENTENCE + " " + SENTENCE)
    assert voice.pid == first  # kept warm
    assert seconds(longer) > 1.5 * seconds(chunks)
    assert len(longer) == 2  # one chunk a sentence, sent when it is ready


async def test_callers_take_turns(voice: PiperSynthesizer) -> None:
    short, long = await asyncio.gather(speak(voice, "Yes."), speak(voice, SENTENCE))
    assert seconds(short) < seconds(long)


async def test_a_slow_reader_holds_up_nobody(voice: PiperSynthesizer) -> None:
    async with aclosing(voice.synthesize("One. Two. Three.")) as slow:
        first = await anext(slow)
        assert seconds(await asyncio.wait_for(speak(voice, SENTENCE), 30)) > 2
        rest = [chunk async for chunk in slow]
    assert seconds([first, *rest]) > 1


async def test_cancel_stops_the_sentence(voice: PiperSynthesizer) -> None:
    await speak(voice, "Warm.")
    pid = voice.pid
    started = time.monotonic()
    chunks = await speak(voice, LONG)
    whole = time.monotonic() - started
    assert chunks
    task = asyncio.create_task(speak(voice, LONG))
    await asyncio.sleep(0.2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    started = time.monotonic()
    await speak(voice, "Yes.")
    assert time.monotonic() - started < max(1.0, whole * 0.7)
    assert voice.pid == pid  # the same worker, and it was not killed for it


async def test_closing_early_stops_it_too(voice: PiperSynthesizer) -> None:
    async with aclosing(voice.synthesize("One. " * 200)) as chunks:
        await anext(chunks)
    started = time.monotonic()
    await speak(voice, "Yes.")
    assert time.monotonic() - started < 10


async def test_a_dead_worker_is_replaced(voice: PiperSynthesizer) -> None:
    await speak(voice, "Warm.")
    first = voice.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    assert await speak(voice, "Again.")
    assert voice.pid != first


async def test_dying_before_the_first_word_is_hidden(voice: PiperSynthesizer) -> None:
    await speak(voice, "Warm.")
    first = voice.pid or 0
    os.kill(first, signal.SIGSTOP)  # so that it cannot be quicker than us
    task = asyncio.create_task(speak(voice, SENTENCE))
    await asyncio.sleep(0.2)
    os.kill(first, signal.SIGKILL)
    assert seconds(await task) > 2
    assert voice.pid != first


async def test_dying_in_the_middle_is_an_error(voice: PiperSynthesizer) -> None:
    chunks = voice.synthesize("One. " * 300)
    await anext(chunks)
    os.kill(voice.pid or 0, signal.SIGKILL)
    with pytest.raises(SpeechError, match="ended"):
        async for _ in chunks:
            pass
    assert await speak(voice, "Again.")


async def test_a_stuck_worker_is_ended(voice: PiperSynthesizer) -> None:
    impatient = PiperSynthesizer(find_voice(None), timeout=3.0, max_chars=5000)
    try:
        await speak(impatient, "Warm.")
        pid = impatient.pid
        os.kill(pid or 0, signal.SIGSTOP)
        with pytest.raises(SpeechError, match="nothing for 3 s"):
            await speak(impatient, "Are you there?")
        assert not alive(pid)
        assert await speak(impatient, "Again.")
    finally:
        await impatient.close()


async def test_too_many_waiting(voice: PiperSynthesizer, monkeypatch) -> None:
    monkeypatch.setattr(piper_process, "_WAITING", 2)
    results = await asyncio.gather(
        *(speak(voice, SENTENCE) for _ in range(4)), return_exceptions=True
    )
    assert sum(isinstance(result, OverloadedError) for result in results) == 2
    assert sum(isinstance(result, list) for result in results) == 2


@pytest.mark.parametrize("text", ["", "   ", "\n\t\0", "!?...", "\ud800", "🙂"])
async def test_nothing_to_say(voice: PiperSynthesizer, text: str) -> None:
    with pytest.raises(UsageError, match="nothing that can be said"):
        await speak(voice, text)
    assert voice.pid is None


async def test_odd_texts_are_spoken(voice: PiperSynthesizer) -> None:
    for text in ("Line\none\r\ntwo\0three", "Größe: 3,5 m² 你好", "[[ x ]] <speak>a</speak>", "7"):
        assert seconds(await speak(voice, text)) > 0.1


async def test_too_long(voice: PiperSynthesizer) -> None:
    with pytest.raises(UsageError, match="5001 characters"):
        await speak(voice, "a" * 5001)


async def test_another_language_is_refused(voice: PiperSynthesizer) -> None:
    with pytest.raises(UsageError, match="speaks 'en', not 'de'"):
        await speak(voice, "Guten Tag.", "de")


def test_no_piper(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(piper.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SetupError) as caught:
        synthesizer(Settings(tts="piper", piper_voice=None, _env_file=None))
    assert "not installed" in caught.value.message
    assert "pip install piper-tts" in caught.value.remedy


def test_voices_by_path(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="lacks"):
        find_voice(tmp_path / "no.onnx")
    with pytest.raises(SetupError, match="0 voices"):
        find_voice(tmp_path)
    model = tmp_path / "de_DE-anna.onnx"
    model.touch()
    with pytest.raises(SetupError, match=r"anna\.onnx\.json"):
        find_voice(model)
    Path(f"{model}.json").write_text("{}")
    assert find_voice(model) == find_voice(tmp_path) == model


async def test_a_voice_by_path_speaks(tmp_path: Path) -> None:
    bundled = find_voice(None)
    for source, name in ((bundled, "my.onnx"), (Path(f"{bundled}.json"), "my.onnx.json")):
        (tmp_path / name).symlink_to(source)
    made = synthesizer(Settings(tts="piper", piper_voice=tmp_path, _env_file=None))
    assert made.name == "piper/my"
    assert [chunk async for chunk in made.synthesize("Yes.")]
    await made.close()


@pytest.fixture
def broken_voice(tmp_path: Path) -> Path:
    model = tmp_path / "broken.onnx"
    model.write_bytes(b"no model")
    Path(f"{model}.json").write_text(Path(f"{find_voice(None)}.json").read_text())
    return model


async def test_a_broken_voice(broken_voice: Path) -> None:
    broken = PiperSynthesizer(find_voice(broken_voice), timeout=30, max_chars=100)
    with pytest.raises(SetupError, match="cannot load the voice") as caught:
        await speak(broken, "Yes.")
    assert "\n" not in str(caught.value)
    assert broken.pid is None


async def test_the_worker_ends_with_us() -> None:
    """Whatever ends the service, the end of its pipe ends the worker."""
    program = (
        "import asyncio, os\n"
        "from orchestrator.speech.piper import *\n"
        "async def main():\n"
        "    voice = PiperSynthesizer(find_voice(None), timeout=60, max_chars=99)\n"
        "    async for _ in voice.synthesize('Yes.'): pass\n"
        "    print(voice.pid, flush=True)\n"
        "    os.kill(os.getpid(), 9)\n"
        "asyncio.run(main())\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE, cwd=Path.cwd(),
        env={**os.environ, "PYTHONPATH": str(Path(piper.__file__).parents[2])},
    )  # fmt: skip
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    for _ in range(100):
        if not alive(int(out)):
            return
        await asyncio.sleep(0.1)
    raise AssertionError("the worker outlived the service")


def test_only_the_workers_import_piper() -> None:
    """GPL: only separate programs link to it, and the one that serves links to nothing of ours."""
    root = Path(piper.__file__).parents[2]
    for path in [*root.glob("orchestrator/**/*.py"), *root.glob("export/**/*.py")]:
        imported = {
            name.split(".")[0]
            for node in ast.walk(ast.parse(path.read_text()))
            for name in (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom) and not node.level
                else []
            )
        }
        if path.name == "piper_worker.py":
            assert "orchestrator" not in imported
        elif path != root / "export" / "demo" / "voice_worker.py":
            assert "piper" not in imported, path

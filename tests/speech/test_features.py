from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from orchestrator.errors import DeadlineError, MediaError, UsageError
from orchestrator.speech.features import speech_features
from orchestrator.speech.mel import SEGMENT, log_mel
from orchestrator.speech.windows import gather, windows

GOLDEN = Path(__file__).parents[1] / "golden" / "audio_windows.json"


class Encoder:
    """Stands for Triton: hidden state of step k, layer l is 10*k + l, counted over all calls."""

    def __init__(self) -> None:
        self.mels = []
        self.steps = []

    async def encode_speech(self, mel, steps, *, timeout=None):
        number = sum(self.steps) + np.arange(steps)
        self.mels.append(mel)
        self.steps.append(steps)
        values = number[:, None, None] + np.arange(5)[:, None] / 8 + np.zeros((1, 5, 384))
        return values.astype(np.float16)


async def test_a_sentence(speechlike) -> None:
    pcm, encoder = speechlike(37_777), Encoder()
    features = await speech_features(encoder, pcm, 25)
    assert encoder.steps == [118]
    np.testing.assert_array_equal(encoder.mels[0], log_mel(pcm))
    whole = np.asarray(features)
    assert whole.shape == (len(features), 50, 384) == (59, 50, 384)
    assert whole.dtype == np.float16
    np.testing.assert_array_equal(features[8:16], whole[8:16])
    np.testing.assert_array_equal(features[56:64], whole[56:])
    # Frame 10 starts at step 20: it reads 16 to 25.
    assert whole[10, ::5, 0].tolist() == list(range(16, 26))
    assert whole[10, :5, 0].tolist() == [16, 16.125, 16.25, 16.375, 16.5]


@pytest.mark.parametrize("alignment", ["centred", "upstream"])
@pytest.mark.parametrize("fps", [8, 15, 25, 49])
async def test_windows_and_encoder_together(speechlike, fps: int, alignment) -> None:
    pcm, encoder = speechlike(50_000), Encoder()
    features = await speech_features(encoder, pcm, fps, alignment)
    hidden = await Encoder().encode_speech(None, 156)
    wanted = gather(hidden, windows(156, 50_000, fps, alignment))
    np.testing.assert_array_equal(np.asarray(features), wanted)


async def test_over_thirty_seconds(speechlike) -> None:
    """Segments of 30 s, one after the other; windows reach over their border."""
    pcm, encoder = speechlike(SEGMENT + 16_777), Encoder()
    features = await speech_features(encoder, pcm, 25)
    assert encoder.steps == [1500, 52]
    assert len(features) == 776
    assert features[750:751][0, ::5, 0].tolist() == list(range(1496, 1506))
    golden = next(
        case
        for case in json.loads(GOLDEN.read_text())["cases"]
        if (case["fps"], case["samples"]) == (25, SEGMENT + 16_777)
    )
    rows = np.array(golden["steps"])
    heard = np.asarray(features)[:, ::5, 0]
    # Exact in fp16 up to 2048.
    np.testing.assert_array_equal(np.where(rows < 0, 0, rows), heard)


@pytest.mark.parametrize("samples", [0, 1, 639])
async def test_less_than_a_frame(samples: int) -> None:
    with pytest.raises(MediaError, match="shorter than one frame"):
        await speech_features(Encoder(), np.zeros(samples, np.int16), 25)


async def test_exactly_a_frame() -> None:
    for fps in range(8, 50):
        samples = -(-16000 // fps)
        features = await speech_features(Encoder(), np.zeros(samples, np.int16), fps)
        assert len(features) == 1


async def test_impossible_rate() -> None:
    with pytest.raises(UsageError):
        await speech_features(Encoder(), np.zeros(16000, np.int16), 50)


async def test_errors_of_triton_pass(speechlike) -> None:
    class Late(Encoder):
        async def encode_speech(self, mel, steps, *, timeout=None):
            raise DeadlineError("no answer")

    with pytest.raises(DeadlineError):
        await speech_features(Late(), speechlike(16000), 25)


@pytest.mark.slow
async def test_real_whisper_hidden_states(speechlike) -> None:
    """The whole path of MuseTalk's own code, by transformers, with a small random Whisper."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.WhisperConfig(
        d_model=384, encoder_layers=4, encoder_attention_heads=6, encoder_ffn_dim=256
    )
    model = transformers.WhisperModel(config).eval().encoder
    extractor = transformers.WhisperFeatureExtractor()
    pcm = speechlike(37_777)

    def hidden(mel) -> np.ndarray:
        with torch.no_grad():
            states = model(torch.from_numpy(mel)[None], output_hidden_states=True).hidden_states
        return torch.stack(states, dim=2)[0].numpy()

    class Whisper:
        async def encode_speech(self, mel, steps, *, timeout=None):
            return hidden(mel)[:steps].astype(np.float16)

    found = np.asarray(await speech_features(Whisper(), pcm, 25, "upstream"), np.float32)
    mel = extractor(pcm / np.float32(32768), sampling_rate=16000, return_tensors="np")
    states = hidden(mel.input_features[0])[:118]
    padded = np.concatenate([np.zeros((4, 5, 384)), states, np.zeros((12, 5, 384))])
    wanted = np.stack([padded[2 * frame : 2 * frame + 10].reshape(50, 384) for frame in range(59)])
    np.testing.assert_allclose(found, wanted, rtol=2e-3, atol=2e-3)

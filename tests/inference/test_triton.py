"""The client, the backend and the real tritonserver together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import numpy as np
import pytest

from loadtests.burst import burst
from orchestrator.errors import BadInputError, DeadlineError, ModelMissingError
from orchestrator.inference import EmbeddedTriton, TritonClient

pytestmark = pytest.mark.triton


@pytest.fixture
async def client(triton: EmbeddedTriton) -> AsyncIterator[TritonClient]:
    async with TritonClient(triton.grpc_address, default_timeout=60) as client:
        yield client


def rows(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 3)).astype(np.float16)


@pytest.mark.parametrize("count", [1, 2, 5, 8])
async def test_every_batch_size_gets_its_own_values(client: TritonClient, count: int) -> None:
    x = rows(count, seed=count)
    result = await client.infer("scale", {"x": x})
    np.testing.assert_array_equal(result["y"], x * 2)
    assert result["y"].dtype == np.float16


async def test_concurrent_requests_share_executions_and_keep_their_rows(
    client: TritonClient,
) -> None:
    x = [np.full((1, 32, 64, 64), value, np.float32) for value in range(24)]
    full = np.zeros((8, 32, 64, 64), np.float32)
    before = await client.statistics("slow")
    # While these are computed, all others come, on a busy machine too.
    busy = [asyncio.create_task(client.infer("slow", {"x": full})) for _ in range(6)]
    results = await asyncio.gather(*(client.infer("slow", {"x": one}) for one in x))
    await asyncio.gather(*busy)
    rows = 24 + 6 * 8
    end = asyncio.get_running_loop().time() + 10
    # Triton answers a batch before it counts it.
    while (after := await client.statistics("slow")).rows - before.rows < rows:
        assert asyncio.get_running_loop().time() < end, after
        await asyncio.sleep(0.05)
    for value, result in enumerate(results):
        # The kernel averages: far from the edges a constant picture stays what it is.
        np.testing.assert_allclose(result["y"][0, :, 32, 32], value, rtol=1e-3)
    assert after.rows - before.rows == rows
    assert after.executions - before.executions <= 6 + 12


async def test_requests_of_different_sizes_share_a_batch(client: TritonClient) -> None:
    busy = asyncio.create_task(client.infer("slow", {"x": np.zeros((8, 32, 64, 64), np.float32)}))
    parts = [rows(count, seed=count) for count in (1, 3, 2, 4, 1, 7)]
    results = await asyncio.gather(*(client.infer("scale", {"x": part}) for part in parts))
    for part, result in zip(parts, results, strict=True):
        np.testing.assert_array_equal(result["y"], part * 2)
    await busy


async def test_lipsync_runs_both_networks_inside_the_server(client: TritonClient) -> None:
    latents = np.arange(3, dtype=np.float16).reshape(3, 1, 1, 1) + np.zeros(
        (3, 8, 32, 32), np.float16
    )
    latents[:, 1] += 10
    audio = np.zeros((3, 50, 384), np.float16)
    audio[:, 0, 0] = [100, 50, 0]
    faces = await client.lipsync(latents, audio)
    assert faces.shape == (3, 256, 256, 3)
    assert faces.dtype == np.uint8
    for row, value in enumerate((100, 51, 2)):
        assert (faces[row, :, :, 0] == value).all()
        assert (faces[row, :, :, 1] == value + 10).all()


@pytest.mark.parametrize("steps", [1, 50, 1500])
async def test_speech_comes_back_as_far_as_asked(client: TritonClient, steps: int) -> None:
    mel = np.zeros((80, 3000), np.float32)
    mel[0] = np.arange(3000)
    hidden = await client.encode_speech(mel, steps)
    assert hidden.shape == (steps, 5, 384)
    np.testing.assert_array_equal(hidden[:, 4, 383], np.arange(steps, dtype=np.float16))


async def test_steps_shorten_what_the_server_sends(client: TritonClient) -> None:
    mel = np.zeros((1, 80, 3000), np.float32)
    cut = await client.infer("whisper_encoder", {"mel": mel}, parameters={"steps": 7})
    assert cut["hidden_states"].shape == (1, 7, 5, 384)
    whole = await client.infer("whisper_encoder", {"mel": mel})
    assert whole["hidden_states"].shape == (1, 1500, 5, 384)


@pytest.mark.parametrize("steps", [0, -3, "many", "1e999", True])
async def test_bad_steps_are_refused_alone(client: TritonClient, steps: int | str) -> None:
    """The requests that share its batch are answered."""
    mel = np.zeros((1, 80, 3000), np.float32)

    async def ask(wanted: int | str) -> dict[str, np.ndarray]:
        return await client.infer("whisper_encoder", {"mel": mel}, parameters={"steps": wanted})

    calls = [ask(steps if number % 3 == 1 else 7) for number in range(9)]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    for number, answer in enumerate(answers):
        if number % 3 == 1:
            assert isinstance(answer, BadInputError) and f"steps is {steps}" in str(answer)
        else:
            assert isinstance(answer, dict), answer
            assert answer["hidden_states"].shape == (1, 7, 5, 384)


async def test_what_a_model_does_not_take_is_bad_input(client: TritonClient) -> None:
    with pytest.raises(BadInputError, match="batch-size must be <= 8"):
        await client.infer("scale", {"x": rows(9)})
    with pytest.raises(BadInputError):
        await client.infer("scale", {"x": np.zeros((1, 4), np.float16)})
    with pytest.raises(BadInputError):
        await client.infer("scale", {"x": np.zeros((1, 3), np.float32)})
    with pytest.raises(BadInputError):
        await client.infer("scale", {"nothing": rows(1)})
    with pytest.raises(BadInputError, match="1 to 1500"):
        await client.encode_speech(np.zeros((80, 3000), np.float32), 1501)
    np.testing.assert_array_equal((await client.infer("scale", {"x": rows(1)}))["y"], rows(1) * 2)


async def test_a_model_that_is_not_there(client: TritonClient) -> None:
    with pytest.raises(ModelMissingError, match="face_parsing"):
        await client.parse_faces(np.zeros((1, 512, 512, 3), np.uint8))
    with pytest.raises(ModelMissingError):
        await client.model_config("face_parsing")
    assert not await client.has_model("face_parsing")
    assert await client.has_model("lipsync")
    assert await client.ready()


async def test_the_model_says_what_it_takes(client: TritonClient) -> None:
    info = await client.model_config("unet")
    assert info.max_batch == 8
    assert info.platform == "musetalk_openvino"
    assert info.parameters == {"precision": "fp32"}
    assert [(t.name, t.dtype, t.dims) for t in info.inputs] == [
        ("latents", np.float16, (8, 32, 32)),
        ("audio", np.float16, (50, 384)),
    ]


async def test_a_deadline_ends_a_call_and_the_server_goes_on(client: TritonClient) -> None:
    x = np.zeros((8, 32, 64, 64), np.float32)
    with pytest.raises(DeadlineError):
        await client.infer("slow", {"x": x}, timeout=0.005)
    with pytest.raises(DeadlineError):
        await client.infer("slow", {"x": x}, timeout=0)
    await client.infer("scale", {"x": rows(1)})


async def test_cancelled_requests_are_not_computed(client: TritonClient) -> None:
    x = np.zeros((8, 32, 64, 64), np.float32)
    before = await client.statistics("slow")
    calls = [asyncio.create_task(client.infer("slow", {"x": x})) for _ in range(12)]
    _, waiting = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
    for call in waiting:
        call.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    # A request of our own comes after all that is still queued.
    await client.infer("slow", {"x": x})
    after = await client.statistics("slow")
    assert after.rows - before.rows < 8 * 8


async def test_a_burst_of_full_batches_does_not_stall(client: TritonClient) -> None:
    x = np.zeros((8, 3), np.float16)
    await client.infer("scale", {"x": x})
    result = await burst(client, "slow", {"x": np.zeros((8, 32, 64, 64), np.float32)})
    # Ideal is 1; a batcher that waits in steps of 500 ms is far above 2.
    assert result.ratio < 2, result

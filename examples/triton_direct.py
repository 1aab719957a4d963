"""Ask Triton itself for mouths, without the orchestrator: latents and audio in, faces out.

    musetalk triton --grpc-port 8001
    python examples/triton_direct.py localhost:8001 portrait.jpg face.png

Encodes the middle of the picture, listens to a second of silence, and writes the 256x256 face
that the model makes of both.
"""

from __future__ import annotations

import sys

import cv2
import numpy as np
from tritonclient.grpc import InferenceServerClient, InferInput

STEPS, BEFORE, FRAME_STEPS = 50, 4, 10
"""Whisper's steps a second; those that a frame reads before its moment, and in all."""


def tensor(name: str, array: np.ndarray, kind: str) -> InferInput:
    made = InferInput(name, list(array.shape), kind)
    made.set_data_from_numpy(array)
    return made


def main() -> int:
    address, picture, output = sys.argv[1:4]
    image = cv2.imread(picture)
    side = min(image.shape[:2])
    top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
    crop = cv2.resize(image[top : top + side, left : left + side], (256, 256))

    with InferenceServerClient(address) as triton:
        for model in ("whisper_encoder", "vae_encoder", "lipsync"):
            print(model, "is ready" if triton.is_model_ready(model) else "is missing")

        answer = triton.infer("vae_encoder", [tensor("crop", crop[None], "UINT8")])
        latents = answer.as_numpy("latents")  # F16[1,8,32,32]

        # 30 s of log-mel; silence is -1.5 on Whisper's scale once it is clamped.
        mel = np.full((1, 80, 3000), -1.5, np.float32)
        answer = triton.infer(
            "whisper_encoder", [tensor("mel", mel, "FP32")], parameters={"steps": STEPS}
        )
        hidden = answer.as_numpy("hidden_states")[0]  # F16[steps,5,384]

        # The frame at half a second reads ten steps around it, of five layers each.
        first = STEPS // 2 - BEFORE
        audio = hidden[first : first + FRAME_STEPS].reshape(1, 5 * FRAME_STEPS, 384)

        inputs = [tensor("latents", latents, "FP16"), tensor("audio", audio, "FP16")]
        face = triton.infer("lipsync", inputs).as_numpy("face")[0]  # U8[256,256,3] BGR
    cv2.imwrite(output, face)
    print(f"{output}: {face.shape[1]}x{face.shape[0]}, mean {face.mean():.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

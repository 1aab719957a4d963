"""Render a text over the gRPC API and write the MP4 as it comes.

    musetalk serve --grpc-port 8081
    python examples/speak_grpc.py localhost:8081 "Hello over gRPC." hello.mp4

Where the service has API keys: MUSETALK_API_KEY=mt_... in the environment.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import grpc

from orchestrator.api.musetalk.v1 import musetalk_pb2 as pb
from orchestrator.api.musetalk.v1 import musetalk_pb2_grpc as rpc


def main() -> int:
    address, text, output = sys.argv[1:4]
    key = os.environ.get("MUSETALK_API_KEY")
    metadata = [("authorization", f"Bearer {key}")] if key else []
    with grpc.insecure_channel(address) as channel, Path(output).open("wb") as file:
        stub = rpc.MuseTalkStub(channel)
        try:
            for answer in stub.Speak(pb.SpeakRequest(text=text), timeout=120, metadata=metadata):
                part = answer.WhichOneof("part")
                if part == "fragment":
                    file.write(answer.fragment.data)  # playable from the first one on
                    print(f"{answer.fragment.start:6.2f} s, {len(answer.fragment.data)} bytes")
                elif part == "finished":
                    print(f"{answer.finished.frames} frames, {answer.finished.seconds:.2f} s")
        except grpc.RpcError as error:
            print(f"{error.code().name}: {error.details()}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

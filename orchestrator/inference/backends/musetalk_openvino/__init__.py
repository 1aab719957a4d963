"""The CPU backend: OpenVINO behind Triton's Python backend."""

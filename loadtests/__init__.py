"""Benchmarks and load tests."""

import os

# As ``musetalk`` does, and before NumPy is loaded: its threads would spin beside the service.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

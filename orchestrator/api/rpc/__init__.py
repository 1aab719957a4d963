"""The gRPC API musetalk.v1, over the same service as HTTP."""

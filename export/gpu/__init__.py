"""The GPU repository: TensorRT engines, or ONNX Runtime where the operator chose it."""

"""One NVIDIA GPU: memory, streams, arrays of other libraries, and ONNX Runtime on it. No torch, no onnx."""

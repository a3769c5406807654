"""TensorRT 10.3 to 11 and TensorRT-RTX through one code path: building engines and running them. No torch, no onnx."""

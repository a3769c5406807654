"""Components to ONNX, to a precision, to engines, to a bundle. Knows torch and onnx; knows no model family."""

"""Files of a checkpoint, read without trusting them: JSON, safetensors, PyTorch; and what a file is that is neither."""

"""Reading untrusted checkpoint files: JSON, safetensors, PyTorch; identification of all others."""

"""Reference models in PyTorch, composed from the same parts and sized by frozen configs."""

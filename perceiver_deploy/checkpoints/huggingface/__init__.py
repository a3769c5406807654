"""Checkpoints of Hugging Face transformers."""

from perceiver_deploy.checkpoints.huggingface.checkpoint import ARCHITECTURES, load

__all__ = ["ARCHITECTURES", "load"]

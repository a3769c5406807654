"""NVIDIA's trtexec on a bundle: its commands, and what it measured."""

"""The command `perceiver-run`."""

"""The `perceiver-export` command line: one module per command, each mirroring one Python function."""

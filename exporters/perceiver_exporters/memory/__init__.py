"""Memory estimates, and chunk sizes that fit a limit."""

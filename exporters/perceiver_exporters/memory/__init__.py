"""Memory estimates of sessions, and chunk sizes that fit a limit."""

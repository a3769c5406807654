"""Task metrics of a session on labelled samples."""

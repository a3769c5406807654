"""Where, and why, a bundle differs from its reference."""

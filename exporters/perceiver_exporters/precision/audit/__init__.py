"""Range audits: nodes that would leave the range of a narrower type."""

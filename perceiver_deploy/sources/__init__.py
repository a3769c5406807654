"""From what a user names to a model: zoo, checkpoint directory, hub id."""

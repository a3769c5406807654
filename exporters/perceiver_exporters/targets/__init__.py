"""Where bundles run."""

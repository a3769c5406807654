"""Writing a bundle, and reading its graphs back."""

"""Training of the shipped checkpoints: `python -m perceiver_deploy.train --out DIR`. See docs/training.md."""

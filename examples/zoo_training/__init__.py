"""Training of the shipped models: `PYTHONPATH=examples python -m zoo_training --out DIR`. See docs/training.md."""

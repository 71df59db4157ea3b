"""Trained weights: `load`, `darknet` (.weights and .cfg), `transfer`, `published`, `download`."""

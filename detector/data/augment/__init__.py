"""Augmentations, each drawn first and then applied; `streams` has their random numbers."""

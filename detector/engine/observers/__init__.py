"""Observers of a training run; they never change its arithmetic."""

"""Optimizers, schedules, checkpoints and callbacks."""

"""Sweeps: studies over any settings of a search or a retraining (`nas-sweep`). The package itself loads nothing."""

"""Judges a model: full-catalogue ranking, baselines, slices, intervals, the gate and its report."""

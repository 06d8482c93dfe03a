"""The evaluation step: full-catalogue ranking, baselines, slices, intervals, gate and report."""

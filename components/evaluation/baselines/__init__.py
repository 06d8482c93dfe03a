"""The built-in baselines, one module each: ``components.evaluation.tuning.BaselineExtension``."""

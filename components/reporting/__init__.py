"""The last step of every pipeline: report the outcome of the run."""

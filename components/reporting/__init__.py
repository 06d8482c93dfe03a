"""The last step of every pipeline: say how the run ended, whatever it was."""
